// Which models there are: from the name that a user gives to a file and the engine that reads it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace pensieve::model {

struct ModelFile {
  std::string id;  // What the API calls it: the file's name without its extension.
  std::string path;
  std::string engine;          // "llama" for GGUF, "scripted" for .script.
  std::string projector = {};  // Path of what reads images for it; empty: it cannot see.

  /// A projector that turns out not to fit fails the load, so a model that is served reads images.
  bool sees() const { return !projector.empty(); }
};

/// Looks for models in a list of folders, in order. Reads folders anew at each call: a model that
/// was just downloaded is found.
class Catalogue {
 public:
  explicit Catalogue(std::vector<std::string> folders) : folders_(std::move(folders)) {}

  /// `model` is a path, a file name, or the beginning of one up to a '.' or '-'
  /// ("SmolLM2-135M-Instruct" finds SmolLM2-135M-Instruct.Q4_1.gguf), without regard to case.
  /// `engine` is "auto" or must be able to read the file.
  ///
  /// `projector` is the path of a projector, "none", or empty: then a file beside the model's whose
  /// name begins with "mmproj" is taken, as model downloads have it, if it is the only one beside
  /// the only model, or goes on with the model's name up to its last part
  /// (mmproj-SmolVLM-256M-Instruct-f16.gguf for SmolVLM-256M-Instruct-Q8_0.gguf).
  ///
  /// Errors: kNotFound, with the folders that were searched and what is there;
  /// kInvalidArgument where the name fits several files or no engine reads the file (MLX folders).
  Result<ModelFile> resolve(std::string_view model, std::string_view engine,
                            std::string_view projector = "") const;

  /// All models in the folders, by id. Projectors are none.
  std::vector<ModelFile> list() const;

 private:
  Result<ModelFile> find(std::string_view model, std::string_view engine) const;

  std::vector<std::string> folders_;
};

}  // namespace pensieve::model
