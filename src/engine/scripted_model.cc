#include "engine/scripted_model.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string_view>

#include <fmt/core.h>

#include "base/text.h"

namespace pensieve::engine {
namespace {

constexpr std::string_view kSpaces = " \t\r";
// Program, libraries and a small vocabulary: a choice, above the 5 MB of a worker that idles.
constexpr Bytes kProcess = 16_MiB;

/// Sets `key`, or says what is wrong with the pair.
std::optional<std::string> set_key(ScriptedModel& model, std::string_view key,
                                   std::string_view value) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  const bool is_number = error == std::errc() && end == value.data() + value.size();

  if (key == "context_tokens") {
    if (number == 0) return "context_tokens must be a whole number of at least 1";
    model.context_tokens = number;
  } else if (key == "prefill_us_per_token") {
    model.prefill_per_token = std::chrono::microseconds(number);
  } else if (key == "token_us") {
    model.token_time = std::chrono::microseconds(number);
  } else if (key == "load_ms") {
    model.load_time = std::chrono::milliseconds(number);
  } else if (key == "prepare_ms") {
    model.prepare_time = std::chrono::milliseconds(number);
  } else if (key == "weights_mib") {
    model.weights = Bytes(std::uint64_t{number} << 20);
  } else if (key == "kv_kib_per_token") {
    model.kv_per_token = Bytes(std::uint64_t{number} << 10);
  } else if (key == "embedding_size") {
    model.embedding_size = number;
  } else if (key == "plan_mib") {
    model.plan_total = Bytes(std::uint64_t{number} << 20);
  } else {
    return fmt::format("unknown key '{}'", key);
  }
  if (!is_number) return fmt::format("{} must be a whole number, not '{}'", key, value);
  return std::nullopt;
}

}  // namespace

Result<ScriptedModel> read_scripted_model(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail(Code::kNotFound, fmt::format("model file {} cannot be opened", path));
  ScriptedModel model;
  std::string line;
  for (std::uint32_t number = 1; std::getline(file, line); ++number) {
    const std::string_view text =
        trimmed(std::string_view(line).substr(0, line.find('#')), kSpaces);
    if (text.empty()) continue;
    const std::string_view key = text.substr(0, text.find_first_of(kSpaces));
    const std::string_view value = trimmed(text.substr(key.size()), kSpaces);
    if (const std::optional<std::string> wrong = set_key(model, key, value)) {
      return fail(Code::kInvalidArgument, fmt::format("{}:{}: {}", path, number, *wrong));
    }
  }
  if (file.bad() || !file.eof()) {
    return fail(Code::kInvalidArgument, fmt::format("{} cannot be read", path));
  }
  return model;
}

Plan plan_scripted(const ScriptedModel& model, const LoadOptions& options) {
  Plan plan;
  plan.context_train_tokens = model.context_tokens;
  plan.context_tokens = options.context_tokens == 0
                            ? model.context_tokens
                            : std::min(options.context_tokens, model.context_tokens);
  plan.cells = options.cells == 0 ? plan.context_tokens : options.cells;
  plan.resize_copy = Bytes(model.kv_per_token.count() * plan.cells);
  if (model.plan_total) {
    plan.estimate.weights_copied = *model.plan_total;
    return plan;
  }
  plan.estimate.weights_copied = model.weights;
  plan.estimate.kv = Bytes(model.kv_per_token.count() * plan.cells);
  plan.estimate.process = kProcess;
  return plan;
}

}  // namespace pensieve::engine
