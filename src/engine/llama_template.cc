#include "engine/llama_template.h"

#include <algorithm>
#include <exception>
#include <functional>
#include <initializer_list>
#include <new>
#include <string_view>
#include <utility>

#include <fmt/core.h>

#include "base/log.h"
#include "base/text.h"
#include "engine/json_numbers.h"
#include "engine/llama_chat.h"
#include "engine/native_marks.h"
#include "engine/native_schema.h"
#include "engine/prompt_check.h"
#include "engine/structural_tag.h"
#include "engine/tool_text.h"

namespace pensieve::engine {
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

/// Takes off an empty pair of marks at the end, which some templates write where they were given no
/// thoughts.
void drop_empty_thoughts(std::string& text, const ThinkingForm& form) {
  std::string_view kept = text;
  for (const std::string& mark : {form.end, form.begin}) {
    kept = kept.substr(0, kept.find_last_not_of(kTextSpaces) + 1);
    if (!kept.ends_with(mark)) return;
    kept.remove_suffix(mark.size());
  }
  text.resize(kept.size());
}

/// Puts the model's own marks in the place of `marks`. White space behind thoughts belongs to
/// nobody, and templates write more or less of it in front of calls: it is what models write.
void put_thoughts(std::string& text, const ThoughtMarks& marks, const ThinkingForm& form) {
  const std::string end = form.end + "\n\n";
  std::string put;
  std::size_t done = 0;
  for (std::size_t at = text.find(marks.begin); at != std::string::npos;
       at = text.find(marks.begin, done)) {
    const std::size_t thoughts = at + marks.begin.size();
    const std::size_t closed = text.find(marks.end, thoughts);
    if (closed == std::string::npos) break;
    put.append(text, done, at - done);
    drop_empty_thoughts(put, form);
    put += form.begin;
    put.append(text, thoughts, closed - thoughts);
    put += end;
    done = std::min(text.find_first_not_of(kTextSpaces, closed + marks.end.size()), text.size());
  }
  put.append(text, done);
  text = std::move(put);
}

/// `may_be_called`: for reading answers, with the tools that may be called instead of those that
/// are shown. For rendering llama-common is told that none will be: it would write a grammar that
/// nobody uses, and fail at a schema that it cannot convert.
common_chat_templates_inputs inputs_of(const Prompt& prompt, bool may_be_called) {
  common_chat_templates_inputs inputs;
  for (const Message& message : prompt.messages) {
    common_chat_msg& out = inputs.messages.emplace_back();
    out.role = role_name(message.role);
    out.content = message.text;
    out.reasoning_content = message.thinking;
    out.tool_call_id = message.tool_call_id;
    out.tool_name = message.tool_name;
    for (const ToolCall& call : message.calls) {
      out.tool_calls.push_back({call.name, with_finite_numbers(call.arguments), call.id});
    }
  }
  for (const Tool& tool : prompt.tools) {
    const bool is_other = may_be_called && prompt.rules.tool_choice == ToolChoice::kNamed &&
                          tool.name != prompt.rules.tool_name;
    if (is_other || !(tool.shown || may_be_called)) continue;
    inputs.tools.push_back({tool.name, tool.description, with_finite_numbers(tool.parameters)});
  }
  inputs.tool_choice =
      may_be_called ? choice_of(prompt.rules.tool_choice) : COMMON_CHAT_TOOL_CHOICE_NONE;
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

bool has_calls(const Prompt& prompt) {
  return std::any_of(prompt.messages.begin(), prompt.messages.end(), [](const Message& message) {
    return message.role == Role::kTool || !message.calls.empty();
  });
}

Message call_turn(std::vector<std::string> ids, std::string text = {}) {
  Message turn{.role = Role::kAssistant, .text = std::move(text)};
  for (std::string& id : ids) turn.calls.push_back({std::move(id), "probe", R"({"input":"1"})"});
  return turn;
}

Message result_of(std::string id) {
  Message result{.role = Role::kTool, .text = "2"};
  result.tool_call_id = std::move(id);
  result.tool_name = "probe";
  return result;
}

/// A conversation with `middle` in it. Templates look at what comes before and after.
Prompt probe_with(std::vector<Message> middle) {
  Prompt prompt{.messages = {{Role::kUser, "q"}}};
  for (Message& message : middle) prompt.messages.push_back(std::move(message));
  prompt.messages.push_back({Role::kAssistant, "a"});
  prompt.messages.push_back({Role::kUser, "q"});
  prompt.tools = {{"probe", "", R"({"type":"object","properties":{"input":{"type":"string"}}})"}};
  return prompt;
}

// As clients send them back, and twice, because there is more than one.
const std::string kFirstId = "toolu_01A09q90qw90lq917835lq91";
const std::string kSecondId = "toolu_01B09q90qw90lq917835lq92";

}  // namespace

LlamaTemplate::LlamaTemplate(const llama_model* model, const std::string& source)
    : templates_(common_chat_templates_init(model, source)) {
  call_form_ = probe_calls();
  if (call_form_ != CallForm::kText) probe_needs();
  if (call_form_ == CallForm::kNative) probe_native_form();
  probe_thinking();
  needs_.text_thoughts = loses_thoughts();
  needs_.no_thoughts = loses_texts();
}

/// Throws what the template raises.
std::string LlamaTemplate::apply(const Prompt& prompt) const {
  const std::lock_guard lock(mutex_);
  return common_chat_templates_apply(templates_.get(), inputs_of(prompt, false)).prompt;
}

/// Throws what the template raises, or the conversion of a schema.
common_chat_params LlamaTemplate::params_of(const Prompt& form) const {
  const std::lock_guard lock(mutex_);
  return common_chat_templates_apply(templates_.get(), inputs_of(form, true));
}

/// A template that rewrites texts (escapes them, say) keeps words that need no such thing.
bool LlamaTemplate::shows_all(const Prompt& form, const std::string& rendered) const {
  return keeps_all(form, rendered) || shows(form);
}

bool LlamaTemplate::shows(const Prompt& form) const {
  try {
    const Prompt words = with_words(form);
    return keeps_all(words, apply(words));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception&) {
    return false;
  }
}

CallForm LlamaTemplate::probe_calls() {
  const auto caps = common_chat_templates_get_caps(templates_.get());
  const auto has = [&caps](const char* name) {
    const auto cap = caps.find(name);
    return cap != caps.end() && cap->second;
  };
  if (!has("supports_tools") || !has("supports_tool_calls")) return CallForm::kText;
  const Prompt probe = probe_with({call_turn({kFirstId}), result_of(kFirstId)});
  if (!shows(probe)) {
    needs_.short_ids = shows(prompt_forms(probe, {.short_ids = true})[0]);
    if (!needs_.short_ids) {
      log::warning("the chat template cannot show a tool call; calls are shown as text");
      return CallForm::kText;
    }
  }
  const CallSpelling hermes = hermes_spelling();
  const std::string wanted = fmt::format("{}\"probe\"{}{{\"input\": \"1\"}}{}", hermes.begin,
                                         hermes.arguments, hermes.end);
  const std::string rendered = apply(prompt_forms(probe, needs_)[0]);
  return rendered.find(wanted) == std::string::npos ? CallForm::kNative : CallForm::kHermes;
}

/// Each need holds only where the template loses something without it, and nothing with it.
void LlamaTemplate::probe_needs() {
  using Need = bool TemplateNeeds::*;
  const auto try_need = [this](std::initializer_list<Need> needs, const Prompt& probe) {
    TemplateNeeds with = needs_;
    bool is_shown = shows(prompt_forms(probe, with)[0]);
    for (const Need need : needs) {
      if (is_shown) break;
      with.*need = true;
      is_shown = shows(prompt_forms(probe, with)[0]);
    }
    if (is_shown) needs_ = with;
  };
  try_need({&TemplateNeeds::single_calls}, probe_with({call_turn({kFirstId, kSecondId}),
                                                       result_of(kFirstId), result_of(kSecondId)}));
  try_need({&TemplateNeeds::joined_results},
           probe_with({call_turn({kFirstId}), result_of(kFirstId), {Role::kUser, "more"}}));
  try_need({&TemplateNeeds::apart_texts, &TemplateNeeds::empty_turns},
           probe_with({call_turn({kFirstId}, "text"), result_of(kFirstId)}));
}

void LlamaTemplate::probe_native_form() {
  if (const Result<NativeForm> form = native_form({}, probe_tools())) {
    native_arguments_ = pensieve::engine::native_arguments(*form);
  }
  if (native_arguments_.form != ArgumentsForm::kUnknown) return;
  log::warning(
      "calls that the model makes of its own will may not keep their schemas: only "
      "llama.cpp knows the chat template's form for them");
}

Result<NativeForm> LlamaTemplate::native_form(const Prompt& prompt,
                                              const std::vector<Tool>& tools) const {
  std::string key = fmt::format("{} {} {}", prompt.rules.parallel_calls,
                                prompt.rules.thinking_tokens_max > 0, prompt.rules.effort);
  for (const Tool& tool : tools) key += fmt::format("\n{} {}", tool.name, tool.parameters);
  {
    const std::lock_guard lock(forms_mutex_);
    if (const auto known = forms_.find(key); known != forms_.end()) return known->second;
  }
  Result<NativeForm> form =
      written_form({.messages = {{Role::kUser, "?"}}, .tools = tools, .rules = prompt.rules});
  if (form) {
    const std::lock_guard lock(forms_mutex_);
    if (forms_.size() >= kFormsMax) forms_.clear();
    forms_.emplace(std::move(key), *form);
  }
  return form;
}

Result<NativeForm> LlamaTemplate::written_form(const Prompt& prompt) const {
  Prompt asked = prompt;
  asked.rules.tool_choice = ToolChoice::kAuto;
  const Result<common_chat_params> params = try_params(asked);
  if (!params) return std::unexpected(params.error());
  NativeForm form{.grammar = params->grammar, .marks = {}};
  for (const common_grammar_trigger& trigger : params->grammar_triggers) {
    if (trigger.type != COMMON_GRAMMAR_TRIGGER_TYPE_WORD) return form_of_heads(params->grammar);
    form.marks.push_back(trigger.value);
  }
  if (!form.marks.empty()) return form;
  asked.rules.tool_choice = ToolChoice::kAny;
  const Result<common_chat_params> must = try_params(asked);
  if (!must) return std::unexpected(must.error());
  return form_of_objects(must->grammar, must->generation_prompt);
}

/// How the model thinks, and which control tokens its answers are read by.
void LlamaTemplate::probe_thinking() {
  Prompt prompt{.messages = {{Role::kUser, "?"}}};
  prompt.tools = {{"probe", "", R"({"type":"object","properties":{}})"}};
  prompt.rules.thinking_tokens_max = 1;
  if (call_form_ == CallForm::kText) prompt.tools.clear();
  const Result<common_chat_params> params = try_params(prompt);
  if (!params) {
    log::warning("the chat template does not say how the model thinks: {}", params.error().message);
    return;
  }
  preserved_ = params->preserved_tokens;
  if (!params->supports_thinking) return;
  for (const std::string& tag : params->thinking_end_tags) {
    const std::string_view text = trimmed(tag);
    if (thinking_.end.empty() && text != kCallMark) thinking_.end = text;
  }
  thinking_.begin = trimmed(params->thinking_start_tag);
}

/// Whether thoughts of a turn that is over are left out, and stand where the model wrote them if
/// they are put in front of its text, or of its call. A template that writes something in between,
/// or tears text and call apart, is left alone: what is cached of the prompt would not be kept.
bool LlamaTemplate::loses_thoughts() const {
  if (thinking_.begin.empty() || thinking_.end.empty() || needs_.apart_texts) return false;
  const ThoughtMarks marks{"zqxbegin", "zqxend"};
  Prompt asked = probe_with({});
  asked.messages.resize(1);
  asked.rules.thinking_tokens_max = 1;
  Prompt over = asked;
  over.messages.push_back({.role = Role::kAssistant, .text = "a", .thinking = "zqxthought"});
  over.messages.push_back({Role::kUser, "q"});
  Prompt loop = asked;
  loop.messages.push_back(call_turn({kFirstId}));
  loop.messages.back().thinking = "zqxthought";
  loop.messages.push_back(result_of(kFirstId));
  try {
    const auto rendered = [this](const Prompt& prompt) {
      const bool is_text = call_form_ == CallForm::kText;
      return apply(prompt_forms(is_text ? with_tools_as_text(prompt) : prompt, needs_)[0]);
    };
    if (rendered(over).find("zqxthought") != std::string::npos) return false;
    const std::string question = rendered(asked);
    std::string_view turn = trimmed(question);
    if (turn.ends_with(thinking_.begin)) turn.remove_suffix(thinking_.begin.size());
    turn = trimmed(turn);
    const auto begins_with_thoughts = [&](const Prompt& prompt) {
      std::string said = rendered(with_thoughts_as_text(prompt, marks));
      put_thoughts(said, marks, thinking_);
      return said.starts_with(turn) && trimmed(std::string_view(said).substr(turn.size()))
                                           .starts_with(thinking_.begin + "\nzqxthought\n");
    };
    return begins_with_thoughts(over) && begins_with_thoughts(loop);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception&) {
    return false;
  }
}

/// Whether a turn loses its text where it has thoughts: llama-common makes a list of two blocks of
/// it, and a template that knows no thoughts shows the first of them in the text's place.
bool LlamaTemplate::loses_texts() const {
  const Prompt over{
      .messages = {{Role::kUser, "q"},
                   {.role = Role::kAssistant, .text = "zqxtext", .thinking = "zqxthought"},
                   {Role::kUser, "q"}}};
  return !shows(over) && shows(without_thoughts(over));
}

Result<RenderedPrompt> LlamaTemplate::render(const Prompt& prompt) const {
  if (needs_.no_thoughts) return render_said(without_thoughts(prompt));
  if (!needs_.text_thoughts) return render_said(prompt);
  const ThoughtMarks marks = unused_marks(prompt);
  Result<RenderedPrompt> rendered = render_said(with_thoughts_as_text(prompt, marks));
  if (!rendered) return rendered;
  put_thoughts(rendered->text, marks, thinking_);
  return rendered;
}

Result<RenderedPrompt> LlamaTemplate::render_said(const Prompt& prompt) const {
  std::string refusal;
  std::optional<RenderedPrompt> second_best;
  const auto try_forms = [&](const Prompt& said, bool as_text) -> std::optional<RenderedPrompt> {
    for (Prompt& form : prompt_forms(said, as_text ? TemplateNeeds{} : needs_)) {
      try {
        std::string text = apply(form);
        const bool is_whole = shows_all(form, text);
        if (!is_whole && second_best) continue;
        RenderedPrompt rendered{std::move(text), std::move(form), as_text};
        if (is_whole) return rendered;
        second_best = std::move(rendered);
      } catch (const std::bad_alloc&) {
        throw;
      } catch (const std::exception& error) {
        if (refusal.empty()) refusal = error.what();
      }
    }
    return std::nullopt;
  };
  const bool is_text = call_form_ == CallForm::kText;
  if (!is_text) {
    if (auto rendered = try_forms(prompt, false)) return *std::move(rendered);
  }
  const bool is_refused = !second_best && !prompt.tools.empty();
  if (is_text || is_refused || has_calls(prompt)) {
    if (auto rendered = try_forms(with_tools_as_text(prompt), true)) return *std::move(rendered);
  }
  if (second_best) return *std::move(second_best);
  return fail(Code::kInvalidArgument,
              fmt::format("the model's chat template refuses this conversation: {}", refusal));
}

Result<common_chat_params> LlamaTemplate::try_params(const Prompt& form) const {
  try {
    return params_of(form);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument, error.what());
  }
}

/// Puts outlines in the place of schemas that are known, or turn out, not to be convertible.
void LlamaTemplate::outline_unconvertible(Prompt& form) const {
  for (Tool& tool : form.tools) {
    Prompt alone{.messages = {{Role::kUser, "?"}}, .tools = {tool}, .rules = form.rules};
    if (alone.rules.tool_choice == ToolChoice::kNamed) alone.rules.tool_name = tool.name;
    if (const Result<common_chat_params> params = try_params(alone); !params) {
      const std::lock_guard lock(outlined_mutex_);
      if (outlined_.size() >= kOutlinedMax) outlined_.clear();
      if (outlined_.insert(std::hash<std::string>()(tool.parameters)).second) {
        log::warning("the schema of arguments of {} cannot be enforced; their names are: {}",
                     tool.name, params.error().message);
      }
      tool.parameters = schema_outline(tool.parameters);
    }
  }
}

Result<common_chat_params> LlamaTemplate::answers(const Prompt& form) const {
  Prompt known = form;
  {
    const std::lock_guard lock(outlined_mutex_);
    for (Tool& tool : known.tools) {
      if (!outlined_.contains(std::hash<std::string>()(tool.parameters))) continue;
      tool.parameters = schema_outline(tool.parameters);
    }
  }
  Result<common_chat_params> params = try_params(known);
  if (params) return params;
  outline_unconvertible(known);
  params = try_params(known);
  if (params) return params;
  // Each can be converted alone, and they cannot together.
  for (Tool& tool : known.tools) tool.parameters = schema_outline(tool.parameters);
  return try_params(known);
}

}  // namespace pensieve::engine
