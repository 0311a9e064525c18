// Which files belong to a model that is named by one of them.
#pragma once

#include <string>
#include <vector>

namespace pensieve::sandbox {

/// `path` itself and, where it is a part of a split model ("NAME-00001-of-00003.gguf", as llama.cpp
/// writes them), all other parts, whether they exist or not. At most kPartsMax.
std::vector<std::string> model_files(const std::string& path);

/// Choice: the largest models that are published have some 60 parts.
inline constexpr unsigned kPartsMax = 1000;

}  // namespace pensieve::sandbox
