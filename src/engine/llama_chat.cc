#include "engine/llama_chat.h"

#include <algorithm>
#include <array>
#include <exception>
#include <functional>
#include <mutex>
#include <set>
#include <unordered_set>
#include <utility>

#include <chat.h>
#include <fmt/core.h>
#include <llama.h>
#include <log.h>

#include "engine/prompt_forms.h"

namespace pensieve::engine {
namespace {

const char* role_name(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
  }
  return "user";
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpaces);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpaces) - first + 1);
}

/// Whether the text of each system and user message is there: a template may skip a role without
/// a word. (Of the assistant's, templates drop old thinking on purpose.)
bool keeps_all(const Prompt& prompt, std::string_view rendered) {
  return std::all_of(prompt.messages.begin(), prompt.messages.end(), [&](const Message& message) {
    return message.role == Role::kAssistant ||
           rendered.find(trimmed(message.text)) != std::string_view::npos;
  });
}

// What Gemma's instruction models were trained with, for files of theirs that lost it.
constexpr const char* kGemmaTemplate = R"({{ bos_token }}
{%- for message in messages -%}
  {%- set role = 'model' if message['role'] == 'assistant' else 'user' -%}
  {%- if message['role'] == 'system' or (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{ raise_exception('turns must alternate, the user first') }}
  {%- endif -%}
  {{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%})";

/// Finds the texts of control tokens in a message.
class ControlTexts {
 public:
  explicit ControlTexts(const llama_vocab* vocab) {
    for (llama_token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
      constexpr int kSpecial = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN;
      if ((llama_vocab_get_attr(vocab, token) & kSpecial) == 0) continue;
      const std::string_view text = llama_vocab_get_text(vocab, token);
      if (text.empty()) continue;
      texts_.insert(text);
      lengths_.insert(text.size());
      is_first_[static_cast<unsigned char>(text[0])] = true;
    }
  }

  /// The length of the longest control text that `text` begins with; 0 where there is none.
  std::size_t match(std::string_view text) const {
    if (text.empty() || !is_first_[static_cast<unsigned char>(text[0])]) return 0;
    for (std::size_t length : lengths_) {
      if (length <= text.size() && texts_.contains(text.substr(0, length))) return length;
    }
    return 0;
  }

 private:
  std::unordered_set<std::string_view> texts_;  // Views into the vocabulary.
  std::set<std::size_t, std::greater<>> lengths_;
  std::array<bool, 256> is_first_{};
};

/// A prompt whose control texts are replaced by marks, and what each mark stands for.
struct Guarded {
  Prompt prompt;
  std::string mark;                 // Occurs in no message of the original prompt.
  std::vector<std::string> hidden;  // One per mark, in the order of messages.
};

Guarded guard(const Prompt& prompt, const ControlTexts& control) {
  Guarded guarded{prompt, {}, {}};
  bool found = false;
  std::string mark = "\xEE\x83\xB1";  // U+E0F1, for private use: in no model's templates.
  for (const Message& message : prompt.messages) {
    while (message.text.find(mark) != std::string::npos) mark += "\xEE\x83\xB2";
    for (std::size_t i = 0; i < message.text.size() && !found; ++i) {
      found = control.match(std::string_view(message.text).substr(i)) > 0;
    }
  }
  if (!found) return guarded;
  guarded.mark = mark + "\xEE\x83\xB3";
  for (Message& message : guarded.prompt.messages) {
    std::string text;
    for (std::size_t i = 0; i < message.text.size();) {
      const std::size_t length = control.match(std::string_view(message.text).substr(i));
      if (length == 0) {
        text += message.text[i++];
        continue;
      }
      guarded.hidden.push_back(message.text.substr(i, length));
      text += guarded.mark;
      i += length;
    }
    message.text = std::move(text);
  }
  return guarded;
}

std::size_t count_of(std::string_view mark, std::string_view text) {
  std::size_t count = 0;
  for (std::size_t at = text.find(mark); at != std::string_view::npos;
       at = text.find(mark, at + mark.size())) {
    ++count;
  }
  return count;
}

}  // namespace

struct LlamaChat::Impl {
  Impl(const llama_model* model, const std::string& template_source)
      : vocab(llama_model_get_vocab(model)),
        control(vocab),
        templates(common_chat_templates_init(
            model, template_source.empty() ? stand_in(model) : template_source)) {}

  /// Empty where the model's own template, or ChatML, is right.
  std::string stand_in(const llama_model* model) const {
    constexpr std::string_view kTurn = "<start_of_turn>";
    const bool has_own = llama_model_chat_template(model, nullptr) != nullptr;
    return !has_own && control.match(kTurn) == kTurn.size() ? kGemmaTemplate : "";
  }

  /// Throws what the template raises.
  std::string apply(const Prompt& prompt) const {
    common_chat_templates_inputs inputs;
    for (const Message& message : prompt.messages) {
      common_chat_msg& out = inputs.messages.emplace_back();
      out.role = role_name(message.role);
      out.content = message.text;
    }
    inputs.add_generation_prompt = !prompt.continues_last;
    if (prompt.continues_last) {
      inputs.continue_final_message = COMMON_CHAT_CONTINUATION_CONTENT;
    }
    // Models without a thinking mode ignore this; the others answer without showing their thoughts
    // as if they were the answer.
    inputs.enable_thinking = false;
    const std::lock_guard lock(mutex);
    return common_chat_templates_apply(templates.get(), inputs).prompt;
  }

  Result<std::string> render(const Prompt& prompt) const {
    std::string refusal;
    std::string second_best;
    for (const Prompt& form : prompt_forms(prompt)) {
      try {
        std::string rendered = apply(form);
        if (keeps_all(prompt, rendered)) return rendered;
        if (second_best.empty()) second_best = std::move(rendered);
      } catch (const std::bad_alloc&) {
        throw;
      } catch (const std::exception& error) {
        if (refusal.empty()) refusal = error.what();
      }
    }
    // Every form lost or changed something: such a template rewrites text (escapes it, say).
    if (!second_best.empty()) return second_best;
    return fail(Code::kInvalidArgument,
                fmt::format("the model's chat template refuses this conversation: {}", refusal));
  }

  void append_tokens(std::string_view text, bool is_first, bool parses_control,
                     std::vector<Token>& tokens) const {
    const std::size_t start = tokens.size();
    // Nearly always enough: a token has at least one byte, and BOS, EOS and a space may be added.
    std::size_t room = text.size() + 4;
    const auto tokenize_into = [&] {
      tokens.resize(start + room);
      return llama_tokenize(vocab, text.data(), static_cast<std::int32_t>(text.size()),
                            tokens.data() + start, static_cast<std::int32_t>(room), is_first,
                            parses_control);
    };
    std::int32_t count = tokenize_into();
    if (count < 0) {
      room = static_cast<std::size_t>(-static_cast<std::int64_t>(count));
      count = tokenize_into();
    }
    PENSIEVE_CHECK(count >= 0);
    tokens.resize(start + static_cast<std::size_t>(count));
  }

  /// As llama-server does: llama-common takes off a BOS that the template wrote where the
  /// tokenizer adds one, and the tokenizer adds it. So it stands there once either way.
  std::vector<Token> tokens_of(std::string_view text, const Guarded& guarded) const {
    std::vector<Token> tokens;
    bool is_first = true;
    for (const std::string& hidden : guarded.hidden) {
      const std::size_t at = text.find(guarded.mark);
      append_tokens(text.substr(0, at), is_first, true, tokens);
      append_tokens(hidden, false, false, tokens);
      text.remove_prefix(at + guarded.mark.size());
      is_first = false;
    }
    append_tokens(text, is_first, true, tokens);
    return tokens;
  }

  const llama_vocab* const vocab;
  const ControlTexts control;
  const common_chat_templates_ptr templates;
  mutable std::mutex mutex;  // Of templates: rendering is not known to be free of shared state.
};

LlamaChat::LlamaChat(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LlamaChat::~LlamaChat() = default;

Result<std::unique_ptr<LlamaChat>> LlamaChat::create(const llama_model* model,
                                                     const std::string& template_source) {
  // llama-common logs through a thread of its own, straight to the terminal; what matters of it
  // comes back as an error.
  common_log_set_verbosity_thold(-1);
  try {
    return std::unique_ptr<LlamaChat>(
        new LlamaChat(std::make_unique<Impl>(model, template_source)));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument,
                fmt::format("the model's chat template cannot be read: {}", error.what()));
  }
}

Result<std::string> LlamaChat::render(const Prompt& prompt) const {
  if (prompt.messages.empty()) {
    return fail(Code::kInvalidArgument, "a prompt needs at least one message");
  }
  if (prompt.continues_last && prompt.messages.back().role != Role::kAssistant) {
    return fail(Code::kInvalidArgument, "only a turn of the assistant can be continued");
  }
  return impl_->render(prompt);
}

Result<std::vector<Token>> LlamaChat::tokenize(const Prompt& prompt) const {
  Guarded guarded = guard(prompt, impl_->control);
  Result<std::string> text = render(guarded.prompt);
  if (!text) return std::unexpected(text.error());
  if (!guarded.hidden.empty() && count_of(guarded.mark, *text) != guarded.hidden.size()) {
    // The template repeats or drops a message, so the marks do not tell which is which.
    return fail(Code::kInvalidArgument,
                "the model's chat template cannot take text that names its control tokens");
  }
  try {
    std::vector<Token> tokens = impl_->tokens_of(*text, guarded);
    if (tokens.empty()) return fail(Code::kInvalidArgument, "the prompt has no tokens");
    return tokens;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument,
                fmt::format("the prompt cannot be tokenised: {}", error.what()));
  }
}

}  // namespace pensieve::engine
