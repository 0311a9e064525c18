#include "engine/llama_sampler.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"

namespace pensieve::engine {
namespace {

template <class Number>
void read_meta(const llama_model* model, llama_model_meta_key key, Number least, Number most,
               Number& value) {
  std::array<char, 64> text{};
  const char* const name = llama_model_meta_key_str(key);
  if (name == nullptr || llama_model_meta_val_str(model, name, text.data(), text.size()) < 0) {
    return;
  }
  Number number{};
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + std::strlen(text.data()), number);
  if (error == std::errc() && number >= least && number <= most) value = number;
}

bool better(const llama_token_data& a, const llama_token_data& b) {
  return a.logit > b.logit;
}

/// The `count` best candidates, best first. Filling in and sorting the whole vocabulary, as a
/// chain that starts from all logits does, costs more than all the rest of sampling.
void select_best(std::span<const float> logits, std::size_t count,
                 std::vector<llama_token_data>& best) {
  best.clear();
  count = std::min(count, logits.size());
  std::size_t token = 0;
  for (; token < count; ++token) {
    best.push_back({static_cast<llama_token>(token), logits[token], 0.0F});
  }
  std::make_heap(best.begin(), best.end(), better);  // The worst of the best is in front.
  for (; token < logits.size(); ++token) {
    if (!(logits[token] > best.front().logit)) continue;
    std::pop_heap(best.begin(), best.end(), better);
    best.back() = {static_cast<llama_token>(token), logits[token], 0.0F};
    std::push_heap(best.begin(), best.end(), better);
  }
  std::sort_heap(best.begin(), best.end(), better);
}

}  // namespace

SamplingDefaults SamplingDefaults::of(const llama_model* model) {
  SamplingDefaults defaults;
  read_meta(model, LLAMA_MODEL_META_KEY_SAMPLING_TEMP, 0.0F, 2.0F, defaults.temperature);
  read_meta(model, LLAMA_MODEL_META_KEY_SAMPLING_TOP_P, 0.01F, 1.0F, defaults.top_p);
  read_meta(model, LLAMA_MODEL_META_KEY_SAMPLING_TOP_K, 1, 1'000'000, defaults.top_k);
  read_meta(model, LLAMA_MODEL_META_KEY_SAMPLING_MIN_P, 0.0F, 1.0F, defaults.min_p);
  return defaults;
}

Result<LlamaSampler> LlamaSampler::create(const Sampling& sampling,
                                          const SamplingDefaults& defaults) {
  const float temperature = sampling.temperature.value_or(defaults.temperature);
  const float top_p = sampling.top_p.value_or(defaults.top_p);
  const std::int32_t top_k = sampling.top_k.value_or(defaults.top_k);
  // Written so that NaN is refused.
  if (!(temperature >= 0.0F && temperature <= 2.0F)) {
    return fail(Code::kInvalidArgument, fmt::format("temperature {} is not in 0..2", temperature));
  }
  if (!(top_p > 0.0F && top_p <= 1.0F)) {
    return fail(Code::kInvalidArgument, fmt::format("top_p {} is not above 0 up to 1", top_p));
  }
  if (top_k < 1) return fail(Code::kInvalidArgument, fmt::format("top_k {} is below 1", top_k));

  LlamaSampler sampler;
  if (temperature == 0.0F) return sampler;
  sampler.top_k_ = static_cast<std::size_t>(top_k);
  llama_sampler_chain_params params = llama_sampler_chain_default_params();
  params.no_perf = true;
  sampler.chain_.reset(llama_sampler_chain_init(params));
  llama_sampler_chain_add(sampler.chain_.get(), llama_sampler_init_top_p(top_p, 1));
  llama_sampler_chain_add(sampler.chain_.get(), llama_sampler_init_min_p(defaults.min_p, 1));
  llama_sampler_chain_add(sampler.chain_.get(), llama_sampler_init_temp(temperature));
  // The one seed that llama.cpp reads as "random" gives what its neighbour gives.
  std::uint32_t seed = sampling.seed.value_or(LLAMA_DEFAULT_SEED);
  if (sampling.seed && seed == LLAMA_DEFAULT_SEED) --seed;
  llama_sampler_chain_add(sampler.chain_.get(), llama_sampler_init_dist(seed));
  return sampler;
}

void LlamaSampler::keep(std::unique_ptr<ShapeFollower> shape, std::span<const Token> answer) {
  shape_ = std::move(shape);
  for (const Token token : answer) {
    // What was said under the same shape fits it.
    if (shape_ && !shape_->accept(token)) shape_.reset();
  }
}

Token LlamaSampler::sample(std::span<const float> logits, std::vector<llama_token_data>& scratch) {
  if (!shape_ || shape_->finished()) return draw(logits, scratch);
  // Most of what a model would say fits already, and to try one token is far cheaper than to ask
  // for all that fit. What was tried in vain cannot come again: the mask forbids it.
  const Token wanted = draw(logits, scratch);
  if (shape_->accept(wanted)) return wanted;
  masked_.assign(logits.begin(), logits.end());
  shape_->mask(masked_);
  const Token token = draw(masked_, scratch);
  if (!shape_->accept(token)) {  // A fault of the grammar's: go on without it.
    log::warning("an answer goes on without its grammar, which refuses a token that it allowed");
    shape_.reset();
  }
  return token;
}

Token LlamaSampler::draw(std::span<const float> logits, std::vector<llama_token_data>& scratch) {
  PENSIEVE_CHECK(!logits.empty());
  if (!chain_) {
    return static_cast<Token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  select_best(logits, top_k_, scratch);
  llama_token_data_array candidates{scratch.data(), scratch.size(), -1, true};
  llama_sampler_apply(chain_.get(), &candidates);
  PENSIEVE_CHECK(candidates.selected >= 0);
  return candidates.data[candidates.selected].id;
}

}  // namespace pensieve::engine
