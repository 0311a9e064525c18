#include "engine/llama_native.h"

#include <array>
#include <cmath>
#include <exception>
#include <limits>
#include <utility>
#include <vector>

#include <fmt/core.h>
#include <json.h>

#include "base/log.h"
#include "engine/token_grammar.h"

namespace pensieve::engine {
namespace {

using Kind = AnswerPiece::Kind;

std::string escaped(std::string_view word) {
  std::string out;
  for (const char c : word) {
    if (std::string_view(".^$|()*+?[]{}\\").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string anchored(const std::string& pattern) {
  if (pattern.empty()) return "^$";
  return (pattern.front() == '^' ? "" : "^") + pattern + (pattern.back() == '$' ? "" : "$");
}

class NativeFollower final : public ShapeFollower {
 public:
  struct Free {
    void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
  };
  using Grammar = std::unique_ptr<llama_sampler, Free>;

  NativeFollower(Grammar grammar, const llama_vocab* vocab)
      : grammar_(std::move(grammar)), vocab_(vocab) {}

  void mask(std::span<float> logits) override {
    candidates_.resize(logits.size());
    for (std::size_t token = 0; token < logits.size(); ++token) {
      candidates_[token] = {static_cast<llama_token>(token), logits[token], 0.0F};
    }
    llama_token_data_array all{candidates_.data(), candidates_.size(), -1, false};
    llama_sampler_apply(grammar_.get(), &all);
    for (std::size_t i = 0; i < all.size; ++i) {
      logits[static_cast<std::size_t>(all.data[i].id)] = all.data[i].logit;
    }
  }

  bool accept(Token token) override {
    // llama.cpp throws where a token does not fit; one candidate says so before.
    llama_token_data one{token, 0.0F, 0.0F};
    llama_token_data_array only{&one, 1, -1, false};
    llama_sampler_apply(grammar_.get(), &only);
    if (std::isinf(one.logit)) return false;
    llama_sampler_accept(grammar_.get(), token);
    finished_ = llama_vocab_is_eog(vocab_, token);
    return true;
  }

  bool finished() const override { return finished_; }

 private:
  Grammar grammar_;
  const llama_vocab* vocab_;
  bool finished_ = false;
  std::vector<llama_token_data> candidates_;
};

class NativeParser final : public AnswerParser {
 public:
  explicit NativeParser(const common_chat_params& params) : params_(params) {
    params_.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
    if (!params.parser.empty()) params_.parser.load(params.parser);
  }

  void push(std::string_view text, std::vector<AnswerPiece>& out) override {
    text_ += text;
    read(true, out);
  }

  void finish(std::vector<AnswerPiece>& out) override {
    read(false, out);
    close_call(out);
    if (understood_ || told_bytes_ > 0) return;
    // Nothing of it was ever understood: it must not be lost.
    if (!text_.empty()) out.push_back({Kind::kText, std::move(text_)});
  }

  bool is_thinking() const override { return is_thinking_; }

 private:
  void read(bool partial, std::vector<AnswerPiece>& out) {
    try {
      const common_chat_msg message = common_chat_parse(text_, partial, params_);
      for (const common_chat_msg_diff& diff : common_chat_msg_diff::compute_diffs(last_, message)) {
        take(diff, out);
      }
      last_ = message;
      understood_ = true;
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception&) {
      understood_ = false;  // More text may help.
    }
  }

  void take(const common_chat_msg_diff& diff, std::vector<AnswerPiece>& out) {
    if (!diff.reasoning_content_delta.empty()) {
      out.push_back({Kind::kThinking, diff.reasoning_content_delta});
      is_thinking_ = true;
    }
    if (!diff.content_delta.empty()) {
      close_call(out);
      is_thinking_ = false;
      out.push_back({Kind::kText, diff.content_delta});
    }
    told_bytes_ += diff.reasoning_content_delta.size() + diff.content_delta.size();
    if (diff.tool_call_index == std::string::npos) return;
    is_thinking_ = false;
    if (diff.tool_call_index != call_index_) {
      close_call(out);
      call_index_ = diff.tool_call_index;
      arguments_.clear();
      in_call_ = true;
      out.push_back({Kind::kCallStart, diff.tool_call_delta.name});
    }
    told_bytes_ += 1;
    if (diff.tool_call_delta.arguments.empty()) return;
    arguments_ += diff.tool_call_delta.arguments;
    out.push_back({Kind::kCallInput, diff.tool_call_delta.arguments});
  }

  /// Ends the open call where its arguments are a whole object.
  void close_call(std::vector<AnswerPiece>& out) {
    if (!in_call_) return;
    in_call_ = false;
    if (arguments_.empty()) {
      arguments_ = "{}";
      out.push_back({Kind::kCallInput, arguments_});
    }
    try {
      if (common_json::parse(arguments_).is_object()) out.push_back({Kind::kCallEnd, {}});
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception&) {
      return;  // Cut off: it stays open.
    }
  }

  common_chat_parser_params params_;
  std::string text_;
  common_chat_msg last_;
  bool understood_ = true;
  bool is_thinking_ = false;
  std::size_t told_bytes_ = 0;
  bool in_call_ = false;
  std::size_t call_index_ = std::string::npos;
  std::string arguments_;
};

}  // namespace

std::vector<Token> tokens_as_written(const llama_vocab* vocab, const std::string& text) {
  std::vector<Token> tokens(text.size() + 2);
  const auto count =
      llama_tokenize(vocab, text.data(), static_cast<std::int32_t>(text.size()), tokens.data(),
                     static_cast<std::int32_t>(tokens.size()), false, true);
  PENSIEVE_CHECK(count >= 0);
  tokens.resize(static_cast<std::size_t>(count));
  // Some tokenizers put a space in front of a text that has none.
  std::array<char, 8> first{};
  const bool adds_space =
      !tokens.empty() && !text.starts_with(' ') &&
      llama_token_to_piece(vocab, tokens[0], first.data(), first.size(), 0, true) > 0 &&
      first[0] == ' ';
  if (adds_space) tokens.erase(tokens.begin());
  return tokens;
}

void append_piece(const llama_vocab* vocab, Token token, bool shows_control, std::string& out) {
  std::array<char, 64> small{};
  const auto size = static_cast<std::int32_t>(small.size());
  const std::int32_t count =
      llama_token_to_piece(vocab, token, small.data(), size, 0, shows_control);
  if (count >= 0) {
    out.append(small.data(), static_cast<std::size_t>(count));
    return;
  }
  const std::size_t start = out.size();
  out.resize(start + static_cast<std::size_t>(-count));
  llama_token_to_piece(vocab, token, out.data() + start, -count, 0, shows_control);
}

Result<std::unique_ptr<ShapeFollower>> NativeShape::follow(const llama_vocab* vocab) const {
  std::vector<std::string> patterns;
  std::vector<llama_token> tokens;
  for (const common_grammar_trigger& trigger : params_.grammar_triggers) {
    switch (trigger.type) {
      case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN:
        tokens.push_back(trigger.token);
        break;
      case COMMON_GRAMMAR_TRIGGER_TYPE_WORD:
        patterns.push_back(escaped(trigger.value));
        break;
      case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN:
        patterns.push_back(trigger.value);
        break;
      case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL:
        patterns.push_back(anchored(trigger.value));
        break;
    }
  }
  std::vector<const char*> pattern_pointers;
  for (const std::string& pattern : patterns) pattern_pointers.push_back(pattern.c_str());
  NativeFollower::Grammar grammar(
      params_.grammar_lazy ? llama_sampler_init_grammar_lazy_patterns(
                                 vocab, params_.grammar.c_str(), "root", pattern_pointers.data(),
                                 pattern_pointers.size(), tokens.data(), tokens.size())
                           : llama_sampler_init_grammar(vocab, params_.grammar.c_str(), "root"));
  if (!grammar) {
    return fail(Code::kInvalidArgument, "llama.cpp cannot read the grammar of these tools");
  }
  auto follower = std::make_unique<NativeFollower>(std::move(grammar), vocab);
  if (params_.grammar_lazy) return follower;
  // What the template wrote for the assistant already: the grammar begins with it.
  for (const Token token : tokens_as_written(vocab, params_.generation_prompt)) {
    if (follower->accept(token)) continue;
    return fail(Code::kInvalidArgument, "the grammar of these tools does not fit the template");
  }
  return follower;
}

std::unique_ptr<ShapeFollower> follow(std::shared_ptr<const AnswerShape> shape,
                                      const llama_vocab* vocab) {
  if (!shape) return nullptr;
  if (auto thinking = std::dynamic_pointer_cast<const ThinkingShape>(shape)) {
    return std::make_unique<ThinkingFollower>(
        thinking->rules, [thinking, vocab] { return follow(thinking->answer, vocab); },
        [vocab](Token token, std::string& out) { append_piece(vocab, token, true, out); });
  }
  if (auto grammar = std::dynamic_pointer_cast<const TokenGrammar>(shape)) {
    return std::make_unique<TokenMatcher>(std::move(grammar));
  }
  const auto native = std::dynamic_pointer_cast<const NativeShape>(shape);
  PENSIEVE_CHECK(native != nullptr);
  Result<std::unique_ptr<ShapeFollower>> follower = native->follow(vocab);
  if (follower) return *std::move(follower);
  log::warning("the shape of an answer is not kept: {}", follower.error().message);
  return nullptr;
}

std::unique_ptr<AnswerParser> make_native_parser(const common_chat_params& params) {
  return std::make_unique<NativeParser>(params);
}

}  // namespace pensieve::engine
