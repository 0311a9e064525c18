// Conversations as tokens of a GGUF model, and what belongs to their answers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"

struct llama_model;

namespace pensieve::engine {

class AnswerGrammars;
class LlamaVision;

/// As chat templates call it.
const char* role_name(Role role);

/// Renders conversations through a model's own template and tokenises them. A file without a
/// template gets Gemma's where its vocabulary has Gemma's turn markers, else ChatML. Text that
/// merely looks like a control token (`<|im_end|>` typed by a user) becomes plain text tokens, so a
/// message cannot end its own turn.
///
/// Ownership: borrows the model and what reads images, which must outlive it.
/// Thread-safety: const functions may be called from any thread; rendering takes turns.
/// Errors: kInvalidArgument with the template's own words, or about an image; kUnavailable as
/// LlamaVision::append() has it. Nothing is thrown.
class LlamaChat {
 public:
  /// `template_source`, where not empty, stands in for the model's own template. `vision` reads
  /// images; null: a prompt with images is refused.
  static Result<std::unique_ptr<LlamaChat>> create(const llama_model* model,
                                                   const std::string& template_source = "",
                                                   const LlamaVision* vision = nullptr);
  ~LlamaChat();

  /// The text that is tokenised, without a BOS that the tokenizer adds.
  Result<std::string> render(const Prompt& prompt) const;

  Result<std::vector<Token>> tokenize(const Prompt& prompt) const;

  /// Engine::prepare(). Calls take the form that the template has for them; a template that knows
  /// no tools gets the offer as text (tool_text.h). Thoughts take at most three quarters of what
  /// the prompt leaves of a window of `context_tokens`.
  Result<Prepared> prepare(const Prompt& prompt, std::uint32_t context_tokens) const;

  /// Whether the model thinks in a way that its template tells of.
  bool can_think() const;

  /// Whether the text of a control token belongs to an answer, because what reads calls and
  /// thoughts needs it.
  bool shows(Token token) const;

 private:
  struct Impl;
  /// The prompt's tokens, how thoughts go on from there, and what the template was given.
  struct Written {
    Prepared prepared;
    Prompt form;
    bool tools_as_text = false;
  };
  explicit LlamaChat(std::unique_ptr<Impl> impl);
  Result<Written> write(const Prompt& prompt) const;
  Result<void> shape(const Written& written, Prepared& prepared) const;
  bool shape_native_call(const Prompt& form, Prepared& prepared) const;
  bool shape_native(const Prompt& form, Prepared& prepared) const;
  AnswerGrammars& grammars() const;

  std::unique_ptr<Impl> impl_;
};

}  // namespace pensieve::engine
