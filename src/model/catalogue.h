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
  std::string engine;  // "llama" for GGUF, "scripted" for .script.
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
  /// Errors: kNotFound, with the folders that were searched and what is there;
  /// kInvalidArgument where the name fits several files or no engine reads the file (MLX folders).
  Result<ModelFile> resolve(std::string_view model, std::string_view engine) const;

  /// All models in the folders, by id.
  std::vector<ModelFile> list() const;

 private:
  std::vector<std::string> folders_;
};

}  // namespace pensieve::model
