#include "engine/llama_chat.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include <chat.h>
#include <fmt/core.h>
#include <llama.h>
#include <log.h>

#include "base/log.h"
#include "engine/answer_grammar.h"
#include "engine/control_guard.h"
#include "engine/llama_native.h"
#include "engine/llama_vision.h"
#include "engine/prompt_forms.h"
#include "engine/structural_tag.h"
#include "engine/tool_text.h"

namespace pensieve::engine {

const char* role_name(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
    case Role::kTool:
      return "tool";
  }
  return "user";
}

namespace {

common_chat_tool_choice choice_of(ToolChoice choice) {
  switch (choice) {
    case ToolChoice::kAuto:
      return COMMON_CHAT_TOOL_CHOICE_AUTO;
    case ToolChoice::kAny:
    case ToolChoice::kNamed:
      return COMMON_CHAT_TOOL_CHOICE_REQUIRED;
    case ToolChoice::kNone:
      return COMMON_CHAT_TOOL_CHOICE_NONE;
  }
  return COMMON_CHAT_TOOL_CHOICE_AUTO;
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
    return message.role == Role::kAssistant || message.text.empty() ||
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

ControlTexts control_texts(const llama_vocab* vocab) {
  ControlTexts control;
  for (llama_token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
    constexpr int kSpecial = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN;
    if ((llama_vocab_get_attr(vocab, token) & kSpecial) == 0) continue;
    control.add(llama_vocab_get_text(vocab, token));
  }
  return control;
}

/// What a template writes for a call, probed once: the form decides how answers are read.
enum class CallForm : std::uint8_t {
  kText,    // The template knows no tools: tool_text.h teaches the model ours.
  kHermes,  // hermes_spelling().
  kNative,  // Another form, which llama-common knows.
};

}  // namespace

struct LlamaChat::Impl {
  Impl(const llama_model* model, const std::string& template_source, const LlamaVision* images)
      : vocab(llama_model_get_vocab(model)),
        vision(images),
        control(control_texts(vocab)),
        templates(common_chat_templates_init(
            model, template_source.empty() ? stand_in(model) : template_source)),
        call_form(probe()) {
    probe_thinking();
  }

  /// Empty where the model's own template, or ChatML, is right.
  std::string stand_in(const llama_model* model) const {
    constexpr std::string_view kTurn = "<start_of_turn>";
    const bool has_own = llama_model_chat_template(model, nullptr) != nullptr;
    return !has_own && control.match(kTurn) == kTurn.size() ? kGemmaTemplate : "";
  }

  /// `may_be_called`: the tools that may be called, instead of those that are shown.
  common_chat_templates_inputs inputs_of(const Prompt& prompt, bool may_be_called) const {
    common_chat_templates_inputs inputs;
    for (const Message& message : prompt.messages) {
      common_chat_msg& out = inputs.messages.emplace_back();
      out.role = role_name(message.role);
      out.content = message.text;
      out.reasoning_content = message.thinking;
      out.tool_call_id = message.tool_call_id;
      out.tool_name = message.tool_name;
      for (const ToolCall& call : message.calls) {
        out.tool_calls.push_back({call.name, call.arguments, call.id});
      }
    }
    for (const Tool& tool : prompt.tools) {
      const bool is_other = may_be_called && prompt.rules.tool_choice == ToolChoice::kNamed &&
                            tool.name != prompt.rules.tool_name;
      if (is_other || !(tool.shown || may_be_called)) continue;
      inputs.tools.push_back({tool.name, tool.description, tool.parameters});
    }
    inputs.tool_choice = choice_of(prompt.rules.tool_choice);
    inputs.parallel_tool_calls = prompt.rules.parallel_calls;
    inputs.add_generation_prompt = !prompt.continues_last;
    if (prompt.continues_last) {
      inputs.continue_final_message = COMMON_CHAT_CONTINUATION_CONTENT;
    }
    // Models without a thinking mode ignore all of this.
    inputs.enable_thinking = prompt.rules.thinking_tokens_max > 0;
    inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
    // Old thoughts stay: a template that drops them changes the prompt behind the client's back,
    // and what is cached of it is lost.
    inputs.chat_template_kwargs["preserve_reasoning"] = "true";
    if (!prompt.rules.effort.empty()) {
      inputs.chat_template_kwargs["reasoning_effort"] = json_string(prompt.rules.effort);
    }
    return inputs;
  }

  /// Throws what the template raises.
  std::string apply(const Prompt& prompt) const {
    const std::lock_guard lock(mutex);
    return common_chat_templates_apply(templates.get(), inputs_of(prompt, false)).prompt;
  }

  /// How answers to `prompt` are read in the template's own form. Throws what the template raises.
  common_chat_params native_params(const Prompt& prompt) const {
    const std::lock_guard lock(mutex);
    return common_chat_templates_apply(templates.get(), inputs_of(prompt, true));
  }

  CallForm probe() const {
    const auto caps = common_chat_templates_get_caps(templates.get());
    const auto has = [&caps](const char* name) {
      const auto cap = caps.find(name);
      return cap != caps.end() && cap->second;
    };
    if (!has("supports_tools") || !has("supports_tool_calls")) return CallForm::kText;
    Message call{.role = Role::kAssistant};
    call.calls = {{"call00000", "probe", R"({"a": 1})"}};
    Message result{.role = Role::kTool, .text = "1"};
    result.tool_call_id = "call00000";
    result.tool_name = "probe";
    Prompt prompt{.messages = {{Role::kUser, "?"}, call, result}};
    prompt.tools = {{"probe", "", R"({"type":"object","properties":{"a":{"type":"integer"}}})"}};
    const CallSpelling hermes = hermes_spelling();
    const std::string wanted =
        fmt::format("{}\"probe\"{}{{\"a\": 1}}{}", hermes.begin, hermes.arguments, hermes.end);
    try {
      const bool is_hermes = apply(prompt).find(wanted) != std::string::npos;
      return is_hermes ? CallForm::kHermes : CallForm::kNative;
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      log::warning("the chat template cannot show a tool call: {}", error.what());
      return CallForm::kText;
    }
  }

  /// How the model thinks, and which control tokens its answers are read by.
  void probe_thinking() {
    Prompt prompt{.messages = {{Role::kUser, "?"}}};
    prompt.tools = {{"probe", "", R"({"type":"object","properties":{}})"}};
    prompt.rules.thinking_tokens_max = 1;
    if (call_form == CallForm::kText) prompt.tools.clear();
    try {
      const common_chat_params params = native_params(prompt);
      for (const std::string& text : params.preserved_tokens) show(text);
      if (!params.supports_thinking) return;
      for (const std::string& tag : params.thinking_end_tags) {
        const std::string_view text = trimmed(tag);
        if (thinking.end.empty() && text != kCallMark) thinking.end = text;
      }
      thinking.begin = trimmed(params.thinking_start_tag);
      show(thinking.begin);
      show(thinking.end);
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      log::warning("the chat template does not say how the model thinks: {}", error.what());
    }
  }

  void show(const std::string& text) {
    const std::vector<Token> tokens = tokens_as_written(vocab, text);
    if (tokens.size() == 1 && !llama_vocab_is_eog(vocab, tokens[0])) shown.insert(tokens[0]);
  }

  bool can_think() const { return !thinking.begin.empty() && !thinking.end.empty(); }

  /// `rendered`: the prompt. Empty where its thoughts are over already.
  std::optional<ThinkingForm> thinking_after(std::string_view rendered) const {
    if (!can_think()) return std::nullopt;
    const std::string_view text = trimmed(rendered);
    if (text.ends_with(thinking.end)) return std::nullopt;
    ThinkingForm form = thinking;
    form.opened = text.ends_with(thinking.begin);
    return form;
  }

  ThinkingRules thinking_rules(const ThinkingForm& form, std::uint32_t tokens_max) const {
    ThinkingRules rules;
    rules.begin = tokens_as_written(vocab, form.begin);
    rules.end_text = form.end;
    rules.end = tokens_as_written(vocab, "\n" + form.end);
    rules.opened = form.opened;
    rules.tokens_max = tokens_max;
    for (const char* space : {"\n", "\n\n"}) {
      const std::vector<Token> tokens = tokens_as_written(vocab, space);
      if (tokens.size() == 1) rules.spaces.push_back(tokens[0]);
    }
    for (Token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
      if (llama_vocab_is_eog(vocab, token)) rules.stops.push_back(token);
    }
    return rules;
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
  Result<void> append_all(std::string_view text, const GuardedPrompt& guarded,
                          Prepared& written) const {
    auto images = std::make_shared<LlamaImages>();
    bool is_first = true;
    while (const std::optional<GuardMark> mark = next_mark(text, guarded)) {
      append_tokens(text.substr(0, mark->at), is_first, true, written.tokens);
      const Hidden& hidden = guarded.hidden[mark->index];
      if (hidden.image == nullptr) {
        append_tokens(hidden.text, false, false, written.tokens);
      } else if (Result<void> put = show_image(*hidden.image, written.tokens, *images); !put) {
        return put;
      }
      text.remove_prefix(mark->at + mark->length);
      is_first = false;
    }
    append_tokens(text, is_first, true, written.tokens);
    if (!images->parts.empty()) written.images = std::move(images);
    return {};
  }

  Result<void> show_image(const Image& image, std::vector<Token>& tokens,
                          LlamaImages& images) const {
    if (vision != nullptr) return vision->append(image, tokens, images);
    return fail(Code::kInvalidArgument,
                fmt::format("{}: this model cannot read images", image.field));
  }

  const llama_vocab* const vocab;
  const LlamaVision* const vision;  // Null: the model cannot see.
  const ControlTexts control;
  const common_chat_templates_ptr templates;
  mutable std::mutex mutex;  // Of templates: rendering is not known to be free of shared state.
  mutable std::mutex grammars_mutex;
  mutable std::unique_ptr<AnswerGrammars> grammars;  // Guarded by grammars_mutex.
  const CallForm call_form;                          // From here on by probing, which renders.
  ThinkingForm thinking;                             // Empty texts where the model does not think.
  std::set<Token> shown;                             // LlamaChat::shows().
};

LlamaChat::LlamaChat(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LlamaChat::~LlamaChat() = default;

Result<std::unique_ptr<LlamaChat>> LlamaChat::create(const llama_model* model,
                                                     const std::string& template_source,
                                                     const LlamaVision* vision) {
  // llama-common logs through a thread of its own, straight to the terminal; what matters of it
  // comes back as an error.
  common_log_set_verbosity_thold(-1);
  try {
    return std::unique_ptr<LlamaChat>(
        new LlamaChat(std::make_unique<Impl>(model, template_source, vision)));
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
  if (impl_->call_form == CallForm::kText) return impl_->render(with_tools_as_text(prompt));
  return impl_->render(prompt);
}

Result<std::vector<Token>> LlamaChat::tokenize(const Prompt& prompt) const {
  Result<Prepared> written = write(prompt);
  if (!written) return std::unexpected(written.error());
  return std::move(written->tokens);
}

/// The prompt's tokens, and how thoughts go on from there.
Result<Prepared> LlamaChat::write(const Prompt& prompt) const {
  const GuardedPrompt guarded = guard(prompt, impl_->control);
  const Result<std::string> text = render(guarded.prompt);
  if (!text) return std::unexpected(text.error());
  try {
    Prepared written;
    if (Result<void> appended = impl_->append_all(*text, guarded, written); !appended) {
      return std::unexpected(appended.error());
    }
    if (written.tokens.empty()) return fail(Code::kInvalidArgument, "the prompt has no tokens");
    if (!prompt.continues_last) written.thinking = impl_->thinking_after(*text);
    return written;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument,
                fmt::format("the prompt cannot be tokenised: {}", error.what()));
  }
}

Result<Prepared> LlamaChat::prepare(const Prompt& prompt, std::uint32_t context_tokens) const {
  Result<Prepared> prepared = write(prompt);
  if (!prepared) return prepared;
  // Thoughts in a form of its own are read by llama-common's parser, as calls are.
  const bool native = impl_->call_form == CallForm::kNative && prompt.rules.json_schema.empty() &&
                      (!prompt.tools.empty() || impl_->can_think());
  Result<void> shaped = native ? shape_native(prompt, *prepared) : shape(prompt, *prepared);
  if (!shaped) return std::unexpected(shaped.error());
  if (!prepared->thinking) return prepared;
  const std::size_t tokens = prepared->tokens.size();
  const std::uint32_t room =
      tokens < context_tokens ? context_tokens - static_cast<std::uint32_t>(tokens) : 0;
  ThinkingRules rules = impl_->thinking_rules(
      *prepared->thinking, std::min(prompt.rules.thinking_tokens_max, room - room / 4));
  const auto grammar = std::dynamic_pointer_cast<const NativeShape>(prepared->shape);
  rules.shape_has_thoughts = grammar && !grammar->is_lazy();
  prepared->shape = std::make_shared<ThinkingShape>(std::move(rules), std::move(prepared->shape));
  if (prepared->parser) prepared->thinking.reset();
  return prepared;
}

Result<void> LlamaChat::shape(const Prompt& prompt, Prepared& prepared) const {
  const CallSpelling spelling =
      impl_->call_form == CallForm::kHermes ? hermes_spelling() : plain_spelling();
  Result<std::shared_ptr<const TokenGrammar>> grammar = grammars().of(prompt, spelling);
  if (!grammar) return std::unexpected(grammar.error());
  prepared.shape = *std::move(grammar);
  prepared.keeps_calls = prepared.shape != nullptr;
  return {};
}

Result<void> LlamaChat::shape_native(const Prompt& prompt, Prepared& prepared) const {
  try {
    const common_chat_params params = impl_->native_params(prompt);
    if (!params.grammar.empty()) prepared.shape = std::make_shared<NativeShape>(params);
    prepared.parser = make_native_parser(params);
    return {};
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument,
                fmt::format("the model's chat template refuses these tools: {}", error.what()));
  }
}

bool LlamaChat::can_think() const {
  return impl_->can_think();
}

bool LlamaChat::shows(Token token) const {
  return impl_->shown.contains(token);
}

/// Made when first needed: it takes a table of the whole vocabulary.
AnswerGrammars& LlamaChat::grammars() const {
  const std::lock_guard lock(impl_->grammars_mutex);
  if (!impl_->grammars) {
    const llama_vocab* const vocab = impl_->vocab;
    const auto count = static_cast<std::size_t>(llama_vocab_n_tokens(vocab));
    std::vector<std::string> pieces(count);
    std::vector<Token> stops;
    for (std::size_t i = 0; i < count; ++i) {
      const auto token = static_cast<llama_token>(i);
      if (llama_vocab_is_eog(vocab, token)) stops.push_back(token);
      append_piece(vocab, token, shows(token), pieces[i]);
    }
    impl_->grammars = std::make_unique<AnswerGrammars>(pieces, std::move(stops));
  }
  return *impl_->grammars;
}

}  // namespace pensieve::engine
