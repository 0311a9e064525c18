// An engine of arithmetic for tests of the batch loop: real accounting of cells, no text, no time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "engine/engine.h"
#include "engine/testing/scripted.h"

namespace pensieve::worker {

/// What follows a sequence is a function of all its tokens, so an answer proves that the engine
/// held exactly what the loop believes. Faults and the shape of answers are public members.
/// Thread-safety: one thread, except append_piece() and ends_generation().
class FakeEngine : public engine::Engine {
 public:
  using Token = engine::Token;
  using Tokens = std::vector<Token>;

  static constexpr Token kEnd = 0;

  /// One input of one step.
  struct Input {
    engine::SequenceId sequence;
    std::size_t tokens;
    bool samples;
    bool operator==(const Input&) const = default;
  };

  FakeEngine(std::size_t cells, std::size_t sequences)
      : sequences_(sequences), table_(cells, sequences) {}

  // What the test sets.
  std::function<Token(const Tokens&)> next_token = hashed_token;
  std::map<Token, std::string> pieces;  // Other tokens are written as numbers.
  bool can_share = true;
  std::optional<std::uint32_t> prefix_granularity;  // A prefix is kept in multiples of it only.
  std::optional<Error> step_error;
  std::optional<Error> image_error;  // Of steps that are a picture.
  std::optional<Error> sampling_error;
  std::optional<Error> resize_error;
  std::optional<Error> restore_error;
  std::optional<Error> embed_error;
  std::uint32_t cells_multiple = 1;  // resize() rounds up to one.
  std::function<void(std::size_t tokens)> during_step;

  // What the test looks at.
  std::vector<std::vector<Input>> steps;
  std::vector<std::size_t> whole_images;  // Tokens of each picture that was processed, in order.
  std::uint32_t clear_cache_calls = 0;
  std::uint32_t release_buffers_calls = 0;
  std::uint32_t shared_tokens = 0;     // Over all calls of share_prefix().
  std::uint32_t refused_steps = 0;     // For want of cells.
  std::vector<std::uint32_t> resizes;  // What was asked for.
  std::map<engine::SequenceId, std::shared_ptr<const engine::PromptImages>> images;

  std::size_t cells_used() const { return table_.size() - table_.free_count(); }
  std::size_t tokens_held() const {
    std::size_t sum = 0;
    for (const Tokens& tokens : sequences_) sum += tokens.size();
    return sum;
  }
  const Tokens& tokens_of(engine::SequenceId sequence) const { return sequences_.at(sequence); }

  /// FNV-1a over the tokens; never kEnd.
  static Token hashed_token(const Tokens& tokens) {
    std::uint64_t hash = 14695981039346656037U;
    for (const Token token : tokens) {
      hash = (hash ^ static_cast<std::uint64_t>(token)) * 1099511628211U;
    }
    return 1000 + static_cast<Token>((hash >> 32) % 9000);
  }

  std::string piece(Token token) const {
    const auto given = pieces.find(token);
    return given != pieces.end() ? given->second : fmt::format("{} ", token);
  }

  Result<engine::Plan> plan(const engine::LoadOptions&) override { return engine::Plan{}; }
  Result<engine::ModelInfo> load(const engine::LoadOptions&,
                                 const std::function<void(float)>&) override {
    return engine::ModelInfo{};
  }
  Result<Tokens> tokenize(const engine::Prompt&) const override { return Tokens{1}; }
  /// The first token, and how many there are.
  Result<std::vector<float>> embed(std::span<const Token> tokens) override {
    if (embed_error) return std::unexpected(*embed_error);
    return std::vector{static_cast<float>(tokens[0]), static_cast<float>(tokens.size())};
  }
  void append_piece(Token token, std::string& out) const override { out += piece(token); }
  bool ends_generation(Token token) const override { return token == kEnd; }

  Result<void> set_sampling(engine::SequenceId sequence, const engine::Sampling&,
                            std::span<const Token>) override {
    PENSIEVE_CHECK(sequence < sequences_.size());
    if (sampling_error) return std::unexpected(*sampling_error);
    return {};
  }

  void set_images(engine::SequenceId sequence,
                  std::shared_ptr<const engine::PromptImages> given) override {
    images[sequence] = std::move(given);
  }

  std::uint32_t keep_prefix(engine::SequenceId sequence, std::uint32_t tokens) override {
    Tokens& held = sequences_.at(sequence);
    if (tokens < held.size()) held.resize(rounded(tokens));
    table_.keep(sequence, held.size());
    return static_cast<std::uint32_t>(held.size());
  }

  std::uint32_t share_prefix(engine::SequenceId from, engine::SequenceId to,
                             std::uint32_t tokens) override {
    PENSIEVE_CHECK(from != to && tokens <= sequences_.at(from).size());
    const std::uint32_t count = can_share ? rounded(tokens) : 0;
    sequences_.at(to).assign(sequences_[from].begin(), sequences_[from].begin() + count);
    table_.share(from, to, count);
    shared_tokens += count;
    return count;
  }

  Result<void> step(std::span<const engine::StepInput> inputs, Tokens& sampled) override {
    if (step_error) return std::unexpected(*step_error);
    if (image_error && engine::is_image(inputs[0].tokens[0])) {
      return std::unexpected(*image_error);
    }
    std::size_t tokens = 0;
    std::vector<bool> seen(sequences_.size());
    for (const engine::StepInput& input : inputs) {
      PENSIEVE_CHECK(!seen.at(input.sequence) && !input.tokens.empty());
      seen[input.sequence] = true;
      check_images(input, inputs.size());
      tokens += input.tokens.size();
    }
    if (tokens > table_.free_count()) {
      ++refused_steps;
      return fail(Code::kOutOfMemory, "no free cells");
    }
    steps.emplace_back();
    for (const engine::StepInput& input : inputs) {
      steps.back().push_back({input.sequence, input.tokens.size(), input.samples});
      Tokens& held = sequences_[input.sequence];
      held.insert(held.end(), input.tokens.begin(), input.tokens.end());
      table_.extend(input.sequence, held.size());
      if (input.samples) sampled.push_back(next_token(held));
    }
    if (during_step) during_step(tokens);
    return {};
  }

  Bytes clear_cache() override {
    ++clear_cache_calls;
    return 7_MiB;
  }
  Bytes release_buffers() override {
    for (const Tokens& held : sequences_) PENSIEVE_CHECK(held.empty());
    ++release_buffers_calls;
    return 100_MiB;
  }
  Bytes kv_per_token() const override { return Bytes(1); }
  std::uint32_t cells() const override { return static_cast<std::uint32_t>(table_.size()); }
  std::uint32_t cells_free() const override {
    return static_cast<std::uint32_t>(table_.free_count());
  }
  std::uint32_t cells_used(std::span<const engine::SequenceId> sequences) const override {
    return static_cast<std::uint32_t>(table_.held_by(sequences));
  }

  Result<std::uint32_t> resize(std::uint32_t cells) override {
    resizes.push_back(cells);
    if (resize_error) return std::unexpected(*resize_error);
    const std::uint32_t rounded_up = (cells + cells_multiple - 1) / cells_multiple * cells_multiple;
    if (cells == 0 || cells_used() > rounded_up) {
      return fail(Code::kInvalidArgument, "fewer cells than are used");
    }
    table_.resize(rounded_up);
    return rounded_up;
  }

  /// A state is the tokens themselves, four bytes each.
  Bytes state_bytes(engine::SequenceId sequence) const override {
    return Bytes(sequences_.at(sequence).size() * sizeof(Token));
  }
  Result<void> save_state(engine::SequenceId sequence, std::string& out) const override {
    const Tokens& held = sequences_.at(sequence);
    out.assign(reinterpret_cast<const char*>(held.data()), held.size() * sizeof(Token));
    return {};
  }
  Result<void> restore_state(engine::SequenceId sequence, std::string_view state,
                             std::uint32_t tokens) override {
    keep_prefix(sequence, 0);
    if (restore_error) return std::unexpected(*restore_error);
    if (state.size() != tokens * sizeof(Token)) {
      return fail(Code::kInvalidArgument, "a state of another number of tokens");
    }
    if (tokens > table_.free_count()) return fail(Code::kOutOfMemory, "no free cells");
    Tokens& held = sequences_.at(sequence);
    held.resize(tokens);
    std::memcpy(held.data(), state.data(), state.size());
    table_.extend(sequence, tokens);
    return {};
  }
  bool can_go_back() const override { return !prefix_granularity; }
  std::string state_format() const override { return "fake"; }

 private:
  /// What Engine::step() requires: a picture comes whole, alone, and with its file.
  void check_images(const engine::StepInput& input, std::size_t inputs) {
    const auto pictures = std::count_if(input.tokens.begin(), input.tokens.end(), engine::is_image);
    if (pictures == 0) return;
    PENSIEVE_CHECK(inputs == 1 && images[input.sequence] != nullptr);
    PENSIEVE_CHECK(pictures == std::ssize(input.tokens) && engine::starts_image(input.tokens[0]));
    PENSIEVE_CHECK(std::count_if(input.tokens.begin(), input.tokens.end(), engine::starts_image) ==
                   1);
    whole_images.push_back(input.tokens.size());
  }

  std::uint32_t rounded(std::uint32_t tokens) const {
    return prefix_granularity ? tokens / *prefix_granularity * *prefix_granularity : tokens;
  }

  std::vector<Tokens> sequences_;
  engine::CellTable table_;
};

}  // namespace pensieve::worker
