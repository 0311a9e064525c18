// Images for GGUF models: llama.cpp's mtmd library with a projector file (mmproj). With
// llama_engine.* the only files of ours that use mtmd, whose API is not stable.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/engine.h"

struct llama_model;

namespace pensieve::engine {

/// Most bytes of picture files that wait or are being processed, of all prompts together.
inline constexpr Bytes kImageFilesMax = 48_MiB;

/// Most pixels of the images of one prompt together: each is decoded before the prompt is accepted,
/// 0.03 s at worst for a million on one core, and meanwhile the worker reads nothing else.
inline constexpr std::uint64_t kPromptPixelsMax = 128U << 20;

/// Where the pictures of one prompt stand. Filled by LlamaVision::append().
class LlamaImages final : public PromptImages {
 public:
  /// A picture as the model sees it; one file may become several (tiles).
  struct Part {
    std::uint32_t at = 0;      // Index of its first token.
    std::uint32_t tokens = 0;  // At least one.
    std::size_t file = 0;      // Index into `files`.
    std::size_t chunk = 0;     // Which of the parts of that file, counted from 0.
  };

  /// The part that begins at token `at`; null where none does.
  const Part* part_at(std::uint32_t at) const;

  std::vector<Part> parts;  // By `at`.
  std::vector<std::shared_ptr<const std::string>> files;
  std::uint64_t pixels = 0;  // Of all files, as they were sent.
};

/// Upper bound of what a projector takes: its weights, which are copied, the buffers of the largest
/// picture that it computes, and pictures while they are read.
/// Errors: kNotFound, kInvalidArgument where it is no projector, or none that is supported here.
/// REQUIRES: start_llama().
Result<Bytes> projector_bytes(const std::string& path);

/// Reads images for one model.
///
/// Supported are projectors whose memory has a bound that is known beforehand and whose pictures
/// take one position a token; projector_bytes() refuses others.
///
/// Ownership: borrows the model, which must outlive it. The files of prompts live as long as their
/// LlamaImages.
/// Thread-safety: append() from any thread; encode() and forget() from one.
/// Errors: kInvalidArgument is about a picture; nothing is thrown but std::bad_alloc.
class LlamaVision {
 public:
  struct Options {
    std::string path;
    std::uint32_t threads = 1;
    /// Most tokens that the model processes at once; a projector whose pictures must be seen as a
    /// whole needs that many.
    std::uint32_t step_tokens_max = 512;
  };

  /// `tick` is called while weights are read and while pictures are computed.
  /// Errors: kNotFound, kInvalidArgument where the projector does not belong to the model.
  static Result<std::unique_ptr<LlamaVision>> load(const llama_model* model, const Options& options,
                                                   const ProgressTick& tick);
  ~LlamaVision();

  /// Appends the tokens that stand for `image`: what the model wants around a picture, and the
  /// picture's positions. Decodes it, so that a broken one is known before anything is promised.
  /// Errors: kInvalidArgument with the image's field; kUnavailable where too many files wait.
  /// After an error both lists may hold a part of it.
  Result<void> append(const Image& image, std::vector<Token>& tokens, LlamaImages& images) const;

  /// The embeddings of `part`, a row of the model's width for each token. They stay valid until the
  /// next call of encode() or forget(); a second call for the same part computes nothing.
  Result<std::span<const float>> encode(const LlamaImages& images, const LlamaImages::Part& part);

  /// Gives back what encode() keeps: the pixels of one file and the embeddings of one part.
  void forget();

  /// False: each position of a picture sees all of the others, also those after it.
  bool is_causal() const;

 private:
  struct Impl;
  explicit LlamaVision(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace pensieve::engine
