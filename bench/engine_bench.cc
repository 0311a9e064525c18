// The engine alone, without server and worker: the yardstick for what the two of them cost.
//
// Reads commands, one per line, so that its runs can be interleaved with those of the servers:
//   prefill TOKENS             processes a prompt of TOKENS tokens, in steps of up to 512
//   decode SEQUENCES TOKENS    generates TOKENS tokens in each of SEQUENCES sequences, greedily
// Answers each with one line: tokens per second, of all sequences together.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/core.h>
#include <algorithm>

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/llama_engine.h"

namespace pensieve::engine {
namespace {

constexpr std::uint32_t kContextTokens = 8192;
constexpr std::uint32_t kSequencesMax = 4;
constexpr std::uint32_t kStepTokensMax = 512;

class Bench {
 public:
  Result<void> load(const std::string& path, std::uint32_t threads) {
    const LoadOptions options{.model_path = path,
                              .context_tokens = kContextTokens,
                              .sequences_max = kSequencesMax,
                              .step_tokens_max = kStepTokensMax,
                              .threads = threads};
    const Result<ModelInfo> info = engine_->load(options, nullptr);
    if (!info) return std::unexpected(info.error());
    return {};
  }

  /// Tokens per second of a prompt that nothing of is cached.
  Result<double> prefill(std::uint32_t tokens) {
    const Result<std::vector<Token>> prompt = long_prompt(tokens);
    if (!prompt) return std::unexpected(prompt.error());
    forget_all();
    const TimePoint began = clock_.now();
    const Result<Token> next = process(0, *prompt);
    if (!next) return std::unexpected(next.error());
    return rate(tokens, clock_.now() - began);
  }

  /// Tokens per second after the first token of each sequence, as a client would measure it.
  Result<double> decode(std::uint32_t sequences, std::uint32_t tokens) {
    forget_all();
    std::vector<Token> last;
    for (std::uint32_t i = 0; i < sequences; ++i) {
      Prompt prompt;
      prompt.messages.push_back(
          {Role::kUser, fmt::format("Write a long story about the sea, part {}.", i)});
      const Result<std::vector<Token>> ids = engine_->tokenize(prompt);
      if (!ids) return std::unexpected(ids.error());
      const Result<Token> next = process(i, *ids);
      if (!next) return std::unexpected(next.error());
      last.push_back(*next);
    }
    const TimePoint began = clock_.now();
    std::vector<Token> sampled;
    std::vector<StepInput> inputs;
    for (std::uint32_t step = 0; step < tokens; ++step) {
      inputs.clear();
      for (std::uint32_t i = 0; i < sequences; ++i) {
        inputs.push_back({i, std::span(last).subspan(i, 1), true});
      }
      sampled.clear();
      if (Result<void> stepped = engine_->step(inputs, sampled); !stepped) {
        return std::unexpected(stepped.error());
      }
      last = sampled;
    }
    return rate(std::uint64_t{sequences} * tokens, clock_.now() - began);
  }

 private:
  static double rate(std::uint64_t tokens, Duration took) {
    return static_cast<double>(tokens) / std::chrono::duration<double>(took).count();
  }

  Result<std::vector<Token>> long_prompt(std::uint32_t tokens) const {
    Prompt prompt;
    prompt.messages.push_back({Role::kUser, ""});
    for (std::uint32_t i = 0; i < tokens; ++i) {
      prompt.messages.front().text += fmt::format("Line {} of the report. ", i);
    }
    Result<std::vector<Token>> ids = engine_->tokenize(prompt);
    if (ids) ids->resize(tokens);  // More than one token a line: it only ever gets shorter.
    return ids;
  }

  /// Returns the token that follows `tokens`.
  Result<Token> process(SequenceId sequence, std::span<const Token> tokens) {
    const Sampling greedy{.temperature = 0.0F, .top_p = {}, .top_k = {}, .seed = {}};
    if (Result<void> set = engine_->set_sampling(sequence, greedy, tokens); !set) {
      return std::unexpected(set.error());
    }
    std::vector<Token> sampled;
    while (!tokens.empty()) {
      const std::span<const Token> part =
          tokens.first(std::min<std::size_t>(tokens.size(), kStepTokensMax));
      const StepInput input{sequence, part, part.size() == tokens.size()};
      if (Result<void> stepped = engine_->step(std::span(&input, 1), sampled); !stepped) {
        return std::unexpected(stepped.error());
      }
      tokens = tokens.subspan(part.size());
    }
    return sampled.at(0);
  }

  void forget_all() {
    for (SequenceId i = 0; i < kSequencesMax; ++i) engine_->keep_prefix(i, 0);
  }

  const Clock& clock_ = steady_clock();
  std::unique_ptr<Engine> engine_ = make_llama_engine(ProgressTick());
};

std::optional<std::uint32_t> number(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0) return std::nullopt;
  return value;
}

Result<double> obey(Bench& bench, const std::string& line) {
  std::istringstream words(line);
  std::string verb;
  std::uint32_t first = 0;
  std::uint32_t second = 0;
  words >> verb >> first;
  if (verb == "prefill" && first > 0 && first < kContextTokens) return bench.prefill(first);
  words >> second;
  const bool fits = first > 0 && first <= kSequencesMax && second > 0 &&
                    std::uint64_t{first} * second < kContextTokens / 2;
  if (verb == "decode" && fits) return bench.decode(first, second);
  return fail(Code::kInvalidArgument, "not understood: " + line);
}

int run(std::span<char*> arguments) {
  const std::optional<std::uint32_t> threads =
      arguments.size() == 3 ? number(arguments[2]) : std::nullopt;
  if (!threads) {
    fmt::print(stderr, "usage: engine_bench MODEL.gguf THREADS <commands\n");
    return 2;
  }
  Bench bench;
  if (const Result<void> loaded = bench.load(arguments[1], *threads); !loaded) {
    fmt::print(stderr, "{}\n", loaded.error().message);
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    const Result<double> rate = obey(bench, line);
    if (!rate) {
      fmt::print(stderr, "{}\n", rate.error().message);
      return 1;
    }
    fmt::print("{:.2f}\n", *rate);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace pensieve::engine

int main(int count, char** values) {
  return pensieve::engine::run(std::span(values, static_cast<std::size_t>(count)));
}
