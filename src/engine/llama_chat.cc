#include "engine/llama_chat.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include <fmt/core.h>
#include <llama.h>
#include <log.h>

#include "base/log.h"
#include "base/text.h"
#include "engine/answer_grammar.h"
#include "engine/control_guard.h"
#include "engine/llama_native.h"
#include "engine/llama_template.h"
#include "engine/llama_vision.h"
#include "engine/structural_tag.h"

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

}  // namespace

struct LlamaChat::Impl {
  Impl(const llama_model* model, const std::string& template_source, const LlamaVision* images)
      : vocab(llama_model_get_vocab(model)),
        vision(images),
        control(control_texts(vocab)),
        chat_template(model, template_source.empty() ? stand_in(model) : template_source) {
    for (const std::string& text : chat_template.preserved()) show(text);
    if (can_think()) {
      show(chat_template.thinking().begin);
      show(chat_template.thinking().end);
    }
  }

  /// Empty where the model's own template, or ChatML, is right.
  std::string stand_in(const llama_model* model) const {
    constexpr std::string_view kTurn = "<start_of_turn>";
    const bool has_own = llama_model_chat_template(model, nullptr) != nullptr;
    return !has_own && control.match(kTurn) == kTurn.size() ? kGemmaTemplate : "";
  }

  void show(const std::string& text) {
    const std::vector<Token> tokens = tokens_as_written(vocab, text);
    if (tokens.size() == 1 && !llama_vocab_is_eog(vocab, tokens[0])) shown.insert(tokens[0]);
  }

  bool can_think() const {
    const ThinkingForm& thinking = chat_template.thinking();
    return !thinking.begin.empty() && !thinking.end.empty();
  }

  /// `rendered`: the prompt. Empty where its thoughts are over already.
  std::optional<ThinkingForm> thinking_after(std::string_view rendered) const {
    if (!can_think()) return std::nullopt;
    const std::string_view text = trimmed(rendered);
    ThinkingForm form = chat_template.thinking();
    if (text.ends_with(form.end)) return std::nullopt;
    form.opened = text.ends_with(form.begin);
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

  Result<RenderedPrompt> render(const Prompt& prompt) const {
    if (prompt.messages.empty()) {
      return fail(Code::kInvalidArgument, "a prompt needs at least one message");
    }
    if (prompt.continues_last && prompt.messages.back().role != Role::kAssistant) {
      return fail(Code::kInvalidArgument, "only a turn of the assistant can be continued");
    }
    return chat_template.render(prompt);
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
  const LlamaTemplate chat_template;
  mutable std::mutex writing_mutex;  // The plan has memory for one prompt that is tokenised.
  mutable std::mutex grammars_mutex;
  mutable std::unique_ptr<AnswerGrammars> grammars;  // Guarded by grammars_mutex.
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
  Result<RenderedPrompt> rendered = impl_->render(prompt);
  if (!rendered) return std::unexpected(rendered.error());
  return std::move(rendered->text);
}

Result<std::vector<Token>> LlamaChat::tokenize(const Prompt& prompt) const {
  Result<Written> written = write(prompt);
  if (!written) return std::unexpected(written.error());
  return std::move(written->prepared.tokens);
}

Result<LlamaChat::Written> LlamaChat::write(const Prompt& prompt) const {
  const std::lock_guard one_at_a_time(impl_->writing_mutex);
  const GuardedPrompt guarded = guard(prompt, impl_->control);
  Result<RenderedPrompt> rendered = impl_->render(guarded.prompt);
  if (!rendered) return std::unexpected(rendered.error());
  try {
    Written written;
    Prepared& prepared = written.prepared;
    if (auto appended = impl_->append_all(rendered->text, guarded, prepared); !appended) {
      return std::unexpected(appended.error());
    }
    if (prepared.tokens.empty()) return fail(Code::kInvalidArgument, "the prompt has no tokens");
    if (!prompt.continues_last) prepared.thinking = impl_->thinking_after(rendered->text);
    written.tools_as_text = rendered->tools_as_text;
    written.form = std::move(rendered->form);
    // What a client wrote about tools is needed as it is for the grammar.
    written.form.tools = prompt.tools;
    written.form.rules = prompt.rules;
    return written;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument,
                fmt::format("the prompt cannot be tokenised: {}", error.what()));
  }
}

Result<Prepared> LlamaChat::prepare(const Prompt& prompt, std::uint32_t context_tokens) const {
  Result<Written> written = write(prompt);
  if (!written) return std::unexpected(written.error());
  Prepared prepared = std::move(written->prepared);
  if (Result<void> shaped = shape(*written, prepared); !shaped) {
    return std::unexpected(shaped.error());
  }
  if (!prepared.thinking) return prepared;
  const std::size_t tokens = prepared.tokens.size();
  const std::uint32_t room =
      tokens < context_tokens ? context_tokens - static_cast<std::uint32_t>(tokens) : 0;
  ThinkingRules rules = impl_->thinking_rules(
      *prepared.thinking, std::min(prompt.rules.thinking_tokens_max, room - room / 4));
  const auto grammar = std::dynamic_pointer_cast<const NativeShape>(prepared.shape);
  rules.shape_has_thoughts = grammar && !grammar->is_lazy();
  prepared.shape = std::make_shared<ThinkingShape>(std::move(rules), std::move(prepared.shape));
  if (prepared.parser) prepared.thinking.reset();
  return prepared;
}

Result<void> LlamaChat::shape(const Written& written, Prepared& prepared) const {
  const Prompt& form = written.form;
  const CallForm calls = written.tools_as_text ? CallForm::kText : impl_->chat_template.call_form();
  const bool must_call = !form.tools.empty() && (form.rules.tool_choice == ToolChoice::kAny ||
                                                 form.rules.tool_choice == ToolChoice::kNamed);
  // Thoughts in a form of its own are read by llama-common's parser, as calls are.
  const bool native = calls == CallForm::kNative && !must_call && form.rules.json_schema.empty() &&
                      (!form.tools.empty() || impl_->can_think());
  if (native && shape_native(form, prepared)) return {};
  Prompt asked;
  asked.tools = form.tools;
  asked.rules = form.rules;
  // llama-common's grammars allow any text in front of a call that must come, as long as the model
  // likes. Ours begin with it; what a model of another form would write behind it is no call.
  if (must_call && calls == CallForm::kNative) asked.rules.parallel_calls = false;
  const CallSpelling spelling = calls == CallForm::kHermes ? hermes_spelling() : plain_spelling();
  Result<std::shared_ptr<const TokenGrammar>> grammar = grammars().of(asked, spelling);
  if (!grammar) return std::unexpected(grammar.error());
  prepared.shape = *std::move(grammar);
  prepared.keeps_calls = prepared.shape != nullptr;
  return {};
}

/// Calls in the template's own form, kept by a grammar of ours. False where it is not known enough.
bool LlamaChat::shape_native_call(const Prompt& form, Prepared& prepared) const {
  const LlamaTemplate& own = impl_->chat_template;
  const NativeArguments& arguments = own.native_arguments();
  if (form.tools.empty() || form.rules.tool_choice != ToolChoice::kAuto) return false;
  if (arguments.form == ArgumentsForm::kUnknown) return false;
  const auto calls = native_calls(AnswerGrammars::known(form.tools), arguments);
  if (calls.empty()) return false;
  const Result<NativeForm> written = own.native_form(form, stand_ins(calls));
  if (!written) return false;
  Prompt to_read = form;
  to_read.tools = tools_to_read(calls);
  const Result<common_chat_params> params = own.answers(to_read);
  if (!params) return false;
  auto grammar = grammars().of_native(*written, arguments, calls);
  if (!grammar) {
    log::warning("calls are kept by llama.cpp's own grammar: {}", grammar.error().message);
    return false;
  }
  prepared.shape = *std::move(grammar);
  prepared.parser = make_native_parser(*params);
  return true;
}

/// False, and a line in the log, where llama-common has no form for such answers.
bool LlamaChat::shape_native(const Prompt& form, Prepared& prepared) const {
  if (shape_native_call(form, prepared)) return true;
  const Result<common_chat_params> params = impl_->chat_template.answers(form);
  if (!params) {
    log::warning("calls are written as text: {}", params.error().message);
    return false;
  }
  if (!params->grammar.empty()) prepared.shape = std::make_shared<NativeShape>(*params);
  prepared.parser = make_native_parser(*params);
  return true;
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
