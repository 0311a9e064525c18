#include "engine/schema_nesting.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/core.h>

#include "engine/schema_merge.h"

namespace pensieve::engine {
namespace {

namespace json = boost::json;

constexpr std::string_view kFolder = "#/$defs/";

/// The name of the definition that `schema` is a reference to; empty where it is none.
std::string name_in(const json::object& schema) {
  const json::value* const reference = schema.if_contains("$ref");
  if (reference == nullptr || !reference->is_string()) return {};
  const std::string_view text = reference->get_string();
  return text.starts_with(kFolder) ? std::string(text.substr(kFolder.size())) : std::string();
}

void collect_names(const json::value& schema, std::set<std::string>& names) {
  if (const json::array* const list = schema.if_array()) {
    for (const json::value& one : *list) collect_names(one, names);
  }
  const json::object* const object = schema.if_object();
  if (object == nullptr) return;
  if (std::string name = name_in(*object); !name.empty()) names.insert(std::move(name));
  for (const auto& [keyword, value] : *object) {
    if (keyword != "const" && keyword != "enum") collect_names(value, names);
  }
}

class Leveler {
 public:
  explicit Leveler(const json::object& definitions) : definitions_(definitions) {
    for (const auto& [name, schema] : definitions) collect_names(schema, reached_[name]);
    bool grows = true;
    while (grows) {  // Each turn adds a pair of names, or is the last.
      grows = false;
      for (auto& [name, names] : reached_) {
        const std::set<std::string> before = names;
        for (const std::string& next : before) {
          const auto more = reached_.find(next);
          if (more != reached_.end()) names.insert(more->second.begin(), more->second.end());
        }
        grows = grows || names.size() > before.size();
      }
    }
  }

  std::size_t leveled() const {
    return static_cast<std::size_t>(std::count_if(
        reached_.begin(), reached_.end(), [this](const auto& one) { return goes_on(one.first); }));
  }

  /// Empty where nothing is valid within the levels that are left.
  std::optional<json::value> written(const json::value& schema, int level) {
    const json::object* const object = schema.if_object();
    if (object == nullptr) return schema;
    if (const std::string name = name_in(*object); !name.empty()) return reference(name, level);
    json::object out = *object;
    const bool is_possible = write_branches(out, level) && write_items(out, level) &&
                             write_properties(out, level) && write_others(out, level);
    return is_possible ? std::optional<json::value>(std::move(out)) : std::nullopt;
  }

  json::object take_definitions() { return std::move(written_); }

 private:
  bool is_recursive(const std::string& name) const {
    const auto found = reached_.find(name);
    return found != reached_.end() && found->second.contains(name);
  }
  /// It contains itself, or what does.
  bool goes_on(const std::string& name) const {
    const auto found = reached_.find(name);
    if (found == reached_.end()) return false;
    return is_recursive(name) ||
           std::any_of(found->second.begin(), found->second.end(),
                       [this](const auto& next) { return is_recursive(next); });
  }

  std::optional<json::value> reference(const std::string& name, int level) {
    const json::value* const definition = definitions_.if_contains(name);
    std::string written_name = name;
    if (definition != nullptr && goes_on(name)) {
      level += is_recursive(name) ? 1 : 0;
      if (level > kNestingMax) return std::nullopt;
      written_name = fmt::format("{}_{}", name, level);
    }
    const auto [known, is_new] = is_possible_.emplace(written_name, true);
    if (is_new && definition != nullptr) {
      std::optional<json::value> out = written(*definition, level);
      known->second = out.has_value();
      if (out) written_[written_name] = *std::move(out);
    }
    if (!known->second) return std::nullopt;
    return json::object{{"$ref", std::string(kFolder) + written_name}};
  }

  bool write_branches(json::object& out, int level) {
    json::value* const branches = out.if_contains("anyOf");
    if (branches == nullptr || !branches->is_array()) return true;
    json::array left;
    for (const json::value& branch : branches->get_array()) {
      if (auto kept = written(branch, level)) left.push_back(*std::move(kept));
    }
    *branches = std::move(left);
    return !branches->get_array().empty();
  }

  bool write_items(json::object& out, int level) {
    if (json::value* const places = out.if_contains("prefixItems"); places && places->is_array()) {
      for (json::value& place : places->get_array()) {
        auto kept = written(place, level);
        if (!kept) return false;
        place = *std::move(kept);
      }
    }
    json::value* const items = out.if_contains("items");
    if (items == nullptr) return true;
    if (auto kept = written(*items, level)) {
      *items = *std::move(kept);
      return true;
    }
    if (out.contains("prefixItems") || count(out, "minItems") > 0) return false;
    out = json::object{{"const", json::array()}};  // A list may still be empty.
    return true;
  }

  bool write_properties(json::object& out, int level) {
    json::value* const named = out.if_contains("properties");
    const bool has_properties = named != nullptr && named->is_object();
    json::object left;
    bool is_whole = true;
    if (has_properties) {
      for (const auto& [name, schema] : named->get_object()) {
        if (auto kept = written(schema, level)) {
          left[name] = *std::move(kept);
        } else if (requires_name(out, name)) {
          return false;
        } else {
          is_whole = false;
        }
      }
    }
    json::value* const others = out.if_contains("additionalProperties");
    if (others != nullptr) {
      if (auto kept = written(*others, level)) {
        *others = *std::move(kept);
      } else {
        is_whole = false;
      }
    }
    if (!is_whole) {
      // What was left out may not come back under the rule for other names.
      out["additionalProperties"] = false;
      if (count(out, "minProperties") > left.size()) return false;
    }
    if (has_properties) out["properties"] = std::move(left);
    return true;
  }

  bool write_others(json::object& out, int level) {
    json::value* const patterns = out.if_contains("patternProperties");
    if (patterns == nullptr || !patterns->is_object()) return true;
    for (auto& [pattern, schema] : patterns->get_object()) {
      auto kept = written(schema, level);
      if (!kept) return false;
      schema = *std::move(kept);
    }
    return true;
  }

  static std::size_t count(const json::object& schema, std::string_view keyword) {
    const json::value* const number = schema.if_contains(keyword);
    if (number == nullptr) return 0;
    boost::system::error_code error;
    const auto counted = number->to_number<std::size_t>(error);
    return error ? 0 : counted;
  }

  const json::object& definitions_;
  std::map<std::string, std::set<std::string>, std::less<>> reached_;
  std::map<std::string, bool, std::less<>> is_possible_;  // By the name that was written.
  json::object written_;
};

}  // namespace

json::value with_bounded_nesting(const json::value& schema) {
  const json::object* const root = schema.if_object();
  const json::value* const definitions = root == nullptr ? nullptr : root->if_contains("$defs");
  if (definitions == nullptr || !definitions->is_object()) return schema;
  Leveler leveler(definitions->get_object());
  const std::size_t leveled = leveler.leveled();
  if (leveled == 0 || leveled * (kNestingMax + 1) > kLeveledMax) return schema;
  json::object bare = *root;
  bare.erase("$defs");
  std::optional<json::value> out = leveler.written(bare, 0);
  if (!out || !out->is_object()) return schema;
  out->get_object()["$defs"] = leveler.take_definitions();
  return *std::move(out);
}

}  // namespace pensieve::engine
