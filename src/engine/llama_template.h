// A model's chat template as llama-common runs it: renders conversations, and says how answers are
// written. With llama_native.* the only files of ours that use llama-common, whose API is not
// stable.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <chat.h>
#include <llama.h>

#include "base/error.h"
#include "engine/answer_parser.h"
#include "engine/native_form.h"
#include "engine/prompt.h"
#include "engine/prompt_forms.h"

namespace pensieve::engine {

/// What a template writes for a call, probed once: the form decides how answers are read.
enum class CallForm : std::uint8_t {
  kText,    // The template shows no calls: tool_text.h teaches the model ours.
  kHermes,  // hermes_spelling().
  kNative,  // Another form, which llama-common knows.
};

/// A prompt as text, and the form of it that the template took.
struct RenderedPrompt {
  std::string text;
  Prompt form;
  bool tools_as_text = false;  // Calls are spelled as tool_text.h has it.
};

/// Thread-safety: const functions may be called from any thread; rendering takes turns.
/// Errors: what the template raises comes back as kInvalidArgument. The constructor throws where
/// the template cannot be read.
class LlamaTemplate {
 public:
  /// Schemas that are known not to be convertible; then they are all tried, and told, again.
  static constexpr std::size_t kOutlinedMax = 256;
  /// Forms of calls that are kept: as many as there are sets of tools that take turns.
  static constexpr std::size_t kFormsMax = 16;

  /// `source`, where not empty, stands in for the model's own template.
  LlamaTemplate(const llama_model* model, const std::string& source);

  /// The first form of `prompt` that the template neither refuses nor loses a part of: those of
  /// prompt_forms(), then those of the same conversation with its calls as text. Where all of them
  /// lose something, the first that is not refused.
  Result<RenderedPrompt> render(const Prompt& prompt) const;

  /// How answers to `form` are written and read in the template's own form. A schema that
  /// llama.cpp cannot convert is replaced by its outline (native_schema.h), and the log says so the
  /// first time. Errors: kInvalidArgument where it cannot do without either.
  Result<common_chat_params> answers(const Prompt& form) const;

  /// The form of calls of `tools`, where an answer to `prompt` may have some: text may stand in
  /// front. Errors: kInvalidArgument where llama-common knows no grammar for it, or one that begins
  /// otherwise than with a text.
  Result<NativeForm> native_form(const Prompt& prompt, const std::vector<Tool>& tools) const;

  /// How native_form() writes arguments.
  const NativeArguments& native_arguments() const { return native_arguments_; }

  CallForm call_form() const { return call_form_; }
  const TemplateNeeds& needs() const { return needs_; }
  /// Empty texts where the model does not think.
  const ThinkingForm& thinking() const { return thinking_; }
  /// Texts of control tokens that answers are read by.
  const std::vector<std::string>& preserved() const { return preserved_; }

 private:
  std::string apply(const Prompt& prompt) const;
  common_chat_params params_of(const Prompt& form) const;
  Result<common_chat_params> try_params(const Prompt& form) const;
  bool shows(const Prompt& form) const;
  bool shows_all(const Prompt& form, const std::string& rendered) const;
  CallForm probe_calls();
  void probe_needs();
  void probe_thinking();
  bool loses_thoughts() const;
  bool loses_texts() const;
  Result<RenderedPrompt> render_said(const Prompt& prompt) const;
  void probe_native_form();
  Result<NativeForm> written_form(const Prompt& asked) const;
  void outline_unconvertible(Prompt& form) const;

  const common_chat_templates_ptr templates_;
  mutable std::mutex mutex_;  // Of templates_: rendering is not known to be free of shared state.
  mutable std::mutex outlined_mutex_;
  mutable std::set<std::size_t> outlined_;  // Hashes of schemas. Guarded by outlined_mutex_.
  mutable std::mutex forms_mutex_;
  mutable std::map<std::string, NativeForm> forms_;  // By what was asked. Guarded by forms_mutex_.
  CallForm call_form_ = CallForm::kText;
  NativeArguments native_arguments_;
  TemplateNeeds needs_;
  ThinkingForm thinking_;
  std::vector<std::string> preserved_;
};

}  // namespace pensieve::engine
