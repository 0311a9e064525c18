#include "model/catalogue.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>
#include <set>
#include <tuple>

#include <fmt/core.h>
#include <fmt/format.h>

namespace pensieve::model {
namespace {

namespace fs = std::filesystem;

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

bool is_projector(const fs::path& path) {
  const std::string name = lower(path.filename().string());
  return name.starts_with("mmproj") && name.ends_with(".gguf");
}

/// The model's name in lower case, without the number of a part of a split file and without its
/// last part, which says how the weights are rounded.
std::string family_of(const fs::path& path) {
  std::string name = lower(path.stem().string());
  constexpr std::size_t kPart = std::string_view("-00001-of-00001").size();
  if (name.size() > kPart && name.substr(name.size() - kPart + 6, 4) == "-of-") {
    name.resize(name.size() - kPart);
  }
  const std::size_t end = name.find_last_of("-.");
  return end == std::string::npos ? name : name.substr(0, end);
}

/// The projector that belongs to a model by its place and name; empty where that is not certain.
std::string projector_beside(const fs::path& model) {
  std::vector<fs::path> projectors;
  std::set<std::string> families;
  const fs::path folder = model.parent_path().empty() ? "." : model.parent_path();
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".gguf" || !entry.is_regular_file(error)) continue;
    if (is_projector(entry.path())) {
      projectors.push_back(entry.path());
    } else {
      families.insert(family_of(entry.path()));
    }
  }
  if (projectors.size() == 1 && families.size() == 1) return projectors.front().string();
  std::sort(projectors.begin(), projectors.end());
  const std::string family = family_of(model);
  for (const fs::path& projector : projectors) {
    const std::string name = lower(projector.stem().string());
    constexpr std::size_t kPrefix = std::string_view("mmproj-").size();
    if (name.size() > kPrefix && std::string_view(name).substr(kPrefix).starts_with(family)) {
      return projector.string();
    }
  }
  return "";
}

std::optional<ModelFile> model_at(const fs::path& path) {
  const std::string extension = lower(path.extension().string());
  const char* engine = extension == ".gguf"     ? "llama"
                       : extension == ".script" ? "scripted"
                                                : nullptr;
  if (engine == nullptr || is_projector(path)) return std::nullopt;
  return ModelFile{path.stem().string(), path.string(), engine};
}

bool is_mlx_folder(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error) || !fs::exists(path / "config.json", error)) return false;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
    if (entry.path().extension() == ".safetensors") return true;
  }
  return false;
}

Result<ModelFile> checked(const fs::path& path, std::string_view engine) {
  if (is_mlx_folder(path)) {
    return fail(Code::kInvalidArgument,
                fmt::format("{} is an MLX model, and this build has no MLX engine; use a GGUF file "
                            "of the same model",
                            path.string()));
  }
  if (is_projector(path)) {
    return fail(Code::kInvalidArgument,
                fmt::format("{} is a projector, which reads images for a model; name the model",
                            path.string()));
  }
  const std::optional<ModelFile> file = model_at(path);
  if (!file) {
    return fail(Code::kInvalidArgument,
                fmt::format("{} is neither a .gguf nor a .script file", path.string()));
  }
  if (engine != "auto" && engine != file->engine) {
    return fail(Code::kInvalidArgument, fmt::format("the engine \"{}\" does not read {}", engine,
                                                    path.filename().string()));
  }
  return *file;
}

/// How well the file's name answers to `wanted`: 0 not at all, 3 best.
int match(const ModelFile& file, const std::string& wanted) {
  const std::string id = lower(file.id);
  if (lower(fs::path(file.path).filename().string()) == wanted || id == wanted) return 3;
  if (!id.starts_with(wanted)) return 0;
  const char next = id[wanted.size()];
  return next == '.' ? 2 : next == '-' ? 1 : 0;
}

}  // namespace

std::vector<ModelFile> Catalogue::list() const {
  std::vector<ModelFile> files;
  for (const std::string& folder : folders_) {
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
      if (!entry.is_regular_file(error)) continue;
      if (std::optional<ModelFile> file = model_at(entry.path())) files.push_back(*file);
    }
  }
  std::stable_sort(files.begin(), files.end(), [](const ModelFile& a, const ModelFile& b) {
    return std::tie(a.id, a.engine) < std::tie(b.id, b.engine);
  });
  return files;
}

Result<ModelFile> Catalogue::resolve(std::string_view model, std::string_view engine,
                                     std::string_view projector) const {
  Result<ModelFile> file = find(model, engine);
  if (!file || file->engine != "llama" || projector == "none") return file;
  file->projector = projector.empty() ? projector_beside(file->path) : std::string(projector);
  return file;
}

Result<ModelFile> Catalogue::find(std::string_view model, std::string_view engine) const {
  std::error_code error;
  const fs::path as_path(model);
  if (fs::exists(as_path, error) &&
      (fs::is_regular_file(as_path, error) || is_mlx_folder(as_path))) {
    return checked(as_path, engine);
  }
  for (const std::string& folder : folders_) {
    if (is_mlx_folder(fs::path(folder) / as_path))
      return checked(fs::path(folder) / as_path, engine);
  }

  const std::string wanted = lower(model);
  const std::vector<ModelFile> files = list();
  int best = 0;
  std::vector<const ModelFile*> found;
  for (const ModelFile& file : files) {
    const int score = match(file, wanted);
    if (score == 0 || score < best) continue;
    if (score > best) found.clear();
    best = score;
    // The same name in a later folder is hidden by the earlier one.
    const bool hidden = std::any_of(found.begin(), found.end(),
                                    [&](const ModelFile* other) { return other->id == file.id; });
    if (!hidden) found.push_back(&file);
  }
  if (found.size() == 1) return checked(found.front()->path, engine);

  std::vector<std::string> names;
  if (found.empty()) {
    for (const ModelFile& file : files) names.push_back(file.id);
    return fail(Code::kNotFound,
                fmt::format("there is no model \"{}\" in {}; {}", model, fmt::join(folders_, ", "),
                            names.empty() ? std::string("these folders hold no model (./dev setup "
                                                        "fetches a small one)")
                                          : fmt::format("there is {}", fmt::join(names, ", "))));
  }
  for (const ModelFile* file : found) names.push_back(file->id);
  return fail(Code::kInvalidArgument,
              fmt::format("\"{}\" may be any of {}; say which", model, fmt::join(names, ", ")));
}

}  // namespace pensieve::model
