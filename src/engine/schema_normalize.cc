#include "engine/schema_normalize.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include <fmt/core.h>
#include <boost/json.hpp>

#include "engine/schema_drafts.h"
#include "engine/schema_keywords.h"
#include "engine/schema_merge.h"
#include "engine/schema_nesting.h"

namespace pensieve::engine {
namespace {

namespace json = boost::json;

constexpr int kParseDepthMax = 256;        // More than any request has (kJsonDepthMax).
constexpr std::size_t kExclusiveMax = 64;  // Branches of a oneOf that are told apart.
constexpr std::size_t kNotesMax = 32;      // Of one schema.
constexpr int kReferenceStepsMax = 32;     // References to references to references.

using Alternatives = std::vector<json::object>;

/// The part of a JSON pointer between two slashes.
std::string unescaped(std::string_view part) {
  std::string out;
  for (std::size_t i = 0; i < part.size(); ++i) {
    if (part[i] == '~' && i + 1 < part.size()) {
      out += part[++i] == '1' ? '/' : '~';
      continue;
    }
    unsigned byte = 0;
    if (part[i] == '%' && i + 2 < part.size() &&
        std::from_chars(part.data() + i + 1, part.data() + i + 3, byte, 16).ec == std::errc()) {
      out += static_cast<char>(byte);
      i += 2;
      continue;
    }
    out += part[i];
  }
  return out;
}

/// Null where there is nothing.
const json::value* target_of(const json::value& root, std::string_view reference) {
  if (reference.empty() || reference.front() != '#') return nullptr;
  reference.remove_prefix(1);
  const json::value* at = &root;
  while (!reference.empty()) {
    if (reference.front() != '/') return nullptr;
    reference.remove_prefix(1);
    const std::size_t end = std::min(reference.find('/'), reference.size());
    const std::string part = unescaped(reference.substr(0, end));
    reference.remove_prefix(end);
    if (const json::object* const object = at->if_object()) {
      at = object->if_contains(part);
    } else if (const json::array* const list = at->if_array()) {
      std::size_t index = 0;
      const auto read = std::from_chars(part.data(), part.data() + part.size(), index);
      if (read.ec != std::errc() || read.ptr != part.data() + part.size()) return nullptr;
      at = list->if_contains(index);
    } else {
      at = nullptr;
    }
    if (at == nullptr) return nullptr;
  }
  return at;
}

bool is_annotation(std::string_view keyword) {
  static const std::set<std::string_view> kAnnotations = {
      "title",    "description", "default",  "examples",        "deprecated",
      "readOnly", "writeOnly",   "$comment", "$schema",         "$id",
      "id",       "$defs",       "$anchor",  "definitions",     "example",
      "nullable", "$vocabulary", "strict",   "contentEncoding", "contentMediaType"};
  return kAnnotations.contains(keyword) || keyword.starts_with("x-");
}

bool is_reference(const json::object& schema) {
  return schema.size() == 1 && schema.contains("$ref");
}

class Normalizer {
 public:
  Normalizer(json::value root, const CanFollowPattern& can_follow)
      : root_(std::move(root)), can_follow_(can_follow) {}

  NormalizedSchema run(SchemaPlace place) {
    json::value out = place == SchemaPlace::kToolInput ? object_root() : written(root_);
    if (!out.is_object()) out = json::object();
    break_circles();
    if (!definitions_.empty()) out.get_object()["$defs"] = std::move(definitions_);
    return {json::serialize(with_bounded_nesting(out)), std::move(notes_)};
  }

 private:
  json::value object_root();
  json::value written(const json::value& schema);
  json::value written_object(const json::object& schema);
  json::value written_alternatives(const Alternatives& all);
  json::value finished(const json::object& simple);
  json::value reference_to(const std::string& reference);
  void break_circles();

  Alternatives alternatives(const json::value& schema);
  Alternatives alternatives_of(const json::object& schema);
  void add_dependent(const json::object& schema, Alternatives& all);
  void add_conditions(const json::object& schema, Alternatives& all);
  std::optional<Alternatives> all_without(const Alternatives& all, const Alternatives& others);
  Alternatives opened(const Alternatives& some);
  Alternatives joined(const Alternatives& some, const Alternatives& others);
  Alternatives joined_pair(const json::object& one, const json::object& other);
  bool set_apart(json::object& one, const json::object& other);
  Alternatives exclusive(const Alternatives& bases, const std::vector<Alternatives>& branches);
  Alternatives seen_through(const json::object& reference);

  void note(std::string_view what) {
    std::string text = fmt::format("{} at {}", what, place_.empty() ? "/" : place_);
    const bool is_told = std::find(notes_.begin(), notes_.end(), text) != notes_.end();
    if (notes_.size() < kNotesMax && !is_told) notes_.push_back(std::move(text));
  }

  const json::value root_;
  const CanFollowPattern& can_follow_;
  std::vector<std::string> notes_;
  std::string place_;
  int depth_ = 0;
  std::size_t nodes_ = 0;
  std::set<const json::value*> opening_;  // Targets of references that are being merged.
  json::object definitions_;
  std::map<std::string, std::string, std::less<>> names_;  // By reference, or by a schema's text.
};

json::value Normalizer::object_root() {
  const Alternatives objects = joined(alternatives(root_), {{{"type", "object"}}});
  const bool is_object = std::all_of(objects.begin(), objects.end(), [](const json::object& one) {
    return types_of(one) == json::array{"object"};
  });
  if (is_object && !objects.empty()) return written_alternatives(objects);
  note("a tool's input that is no object");
  return json::object{{"type", "object"}};
}

json::value Normalizer::written(const json::value& schema) {
  if (schema.is_bool() && schema.get_bool()) return json::object();
  const json::object* const object = schema.if_object();
  if (object == nullptr) {
    note(is_false(schema) ? "`false`" : "what is no schema");
    return json::object();
  }
  if (depth_ >= kSchemaDepthMax || ++nodes_ > kSchemaNodesMax) {
    note("a schema that is too large");
    return json::object();
  }
  ++depth_;
  json::value out = written_object(*object);
  --depth_;
  return out;
}

/// What merges references is written once, under a name: it may be inside itself.
json::value Normalizer::written_object(const json::object& schema) {
  const bool may_recur = schema.contains("allOf") || (schema.contains("$ref") && schema.size() > 1);
  if (!may_recur) return written_alternatives(alternatives(schema));
  std::string key = json::serialize(schema);
  const auto known = names_.find(key);
  if (known != names_.end()) return json::object{{"$ref", "#/$defs/" + known->second}};
  const std::string name = fmt::format("d{}", names_.size());
  names_.emplace(std::move(key), name);
  json::value out = written_alternatives(alternatives(schema));
  definitions_[name] = std::move(out);
  return json::object{{"$ref", "#/$defs/" + name}};
}

json::value Normalizer::written_alternatives(const Alternatives& all) {
  if (all.size() == 1) return finished(all.front());
  json::array branches;
  for (const json::object& one : all) branches.push_back(finished(one));
  return json::object{{"anyOf", std::move(branches)}};
}

json::value Normalizer::finished(const json::object& simple) {
  if (const json::value* const reference = simple.if_contains("$ref")) {
    return reference->is_string() ? reference_to(std::string(reference->get_string()))
                                  : json::object();
  }
  KeywordWriter writer{.write =
                           [this](std::string_view step, const json::value& schema) {
                             const std::size_t length = place_.size();
                             place_ += step;
                             json::value out = written(schema);
                             place_.resize(length);
                             return out;
                           },
                       .note = [this](std::string_view what) { note(what); },
                       .can_follow = can_follow_};
  return written_keywords(simple, writer);
}

json::value Normalizer::reference_to(const std::string& reference) {
  const auto known = names_.find(reference);
  if (known != names_.end()) return json::object{{"$ref", "#/$defs/" + known->second}};
  // A reference to a reference: the last of them, unless they go round in a circle.
  const json::value* target = target_of(root_, reference);
  for (int steps = 0; target != nullptr && target->is_object(); ++steps) {
    const json::object& schema = target->get_object();
    const json::value* const next = is_reference(schema) ? schema.if_contains("$ref") : nullptr;
    if (next == nullptr || !next->is_string()) break;
    target = steps < kReferenceStepsMax ? target_of(root_, next->get_string()) : nullptr;
  }
  if (target == nullptr) {
    note(fmt::format("`$ref` to {}, which is not there", reference));
    return json::object();
  }
  const std::string name = fmt::format("d{}", names_.size());
  names_.emplace(reference, name);
  json::value out = written(*target);
  if (out == json::value(json::object{{"$ref", "#/$defs/" + name}})) out = json::object();
  definitions_[name] = std::move(out);
  return json::object{{"$ref", "#/$defs/" + name}};
}

/// Definitions that are only each other say nothing, and a grammar of them would accept nothing.
void Normalizer::break_circles() {
  constexpr std::string_view kFolder = "#/$defs/";
  for (auto& [name, schema] : definitions_) {
    const json::value* at = &schema;
    for (std::size_t steps = 0; at != nullptr && at->is_object(); ++steps) {
      const json::object& object = at->get_object();
      if (!is_reference(object)) break;
      if (steps > definitions_.size()) {
        schema = json::object();
        note("`$ref` in a circle");
        break;
      }
      std::string_view next = object.at("$ref").get_string();
      next.remove_prefix(kFolder.size());
      at = definitions_.if_contains(next);
    }
  }
}

Alternatives Normalizer::alternatives(const json::value& schema) {
  if (schema.is_bool()) return schema.get_bool() ? Alternatives{{}} : Alternatives{};
  const json::object* const object = schema.if_object();
  if (object == nullptr || depth_ >= kSchemaDepthMax || ++nodes_ > kSchemaNodesMax) {
    note("a schema that is too large, or none");
    return {{}};
  }
  ++depth_;
  Alternatives all = alternatives_of(*object);
  --depth_;
  return all;
}

Alternatives Normalizer::alternatives_of(const json::object& schema) {
  json::object plain;
  for (const auto& [keyword, value] : schema) {
    const bool is_combined = keyword == "anyOf" || keyword == "oneOf" || keyword == "allOf" ||
                             keyword == "$ref" || is_annotation(keyword);
    if (!is_combined) plain[keyword] = value;
  }
  modernize(plain);
  Alternatives all;
  {
    json::object kept = plain;
    for (const char* keyword :
         {"dependentRequired", "dependentSchemas", "not", "if", "then", "else"}) {
      kept.erase(keyword);
    }
    all.push_back(std::move(kept));
  }
  const auto narrow = [&](Alternatives next) {
    if (next.empty()) {
      note("a schema for which nothing is valid");
    } else {
      all = std::move(next);
    }
  };
  if (const json::value* const reference = schema.if_contains("$ref")) {
    narrow(joined(all, {{{"$ref", *reference}}}));
  }
  if (const json::value* const parts = schema.if_contains("allOf"); parts && parts->is_array()) {
    for (const json::value& part : parts->get_array()) narrow(joined(all, alternatives(part)));
  }
  for (const char* keyword : {"anyOf", "oneOf"}) {
    const json::value* const parts = schema.if_contains(keyword);
    if (parts == nullptr || !parts->is_array() || parts->get_array().empty()) continue;
    std::vector<Alternatives> branches;
    Alternatives any;
    for (const json::value& part : parts->get_array()) {
      branches.push_back(alternatives(part));
      any.insert(any.end(), branches.back().begin(), branches.back().end());
    }
    narrow(keyword == std::string_view("oneOf") ? exclusive(all, branches) : joined(all, any));
  }
  add_dependent(plain, all);
  add_conditions(plain, all);
  return all;
}

/// `not`, and `if` as two branches: it and `then`, or not it and `else`.
void Normalizer::add_conditions(const json::object& schema, Alternatives& all) {
  if (const json::value* const forbidden = schema.if_contains("not")) {
    if (std::optional<Alternatives> left = all_without(all, alternatives(*forbidden))) {
      all = *std::move(left);
    } else {
      note("`not`");
    }
  }
  const json::value* const condition = schema.if_contains("if");
  const json::value* const then = schema.if_contains("then");
  const json::value* const otherwise = schema.if_contains("else");
  if (condition == nullptr || (then == nullptr && otherwise == nullptr)) return;
  const Alternatives met = alternatives(*condition);
  std::optional<Alternatives> next = all_without(all, met);
  if (!next) return note("`if`");
  if (otherwise != nullptr) next = joined(*next, alternatives(*otherwise));
  Alternatives with = joined(all, met);
  if (then != nullptr) with = joined(with, alternatives(*then));
  next->insert(next->end(), with.begin(), with.end());
  if (next->empty() || next->size() > kAlternativesMax) return note("`if`");
  all = *std::move(next);
}

/// What of `all` is valid for none of `others`. Empty where there is no way to say so.
std::optional<Alternatives> Normalizer::all_without(const Alternatives& all,
                                                    const Alternatives& others) {
  Alternatives left = opened(all);
  for (const json::object& other : opened(others)) {
    for (json::object& one : left) {
      std::optional<json::object> narrow = without(one, other);
      if (!narrow) return std::nullopt;
      one = *std::move(narrow);
    }
  }
  return left;
}

/// The same without references.
Alternatives Normalizer::opened(const Alternatives& some) {
  Alternatives all;
  for (const json::object& one : some) {
    if (one.contains("$ref")) {
      for (json::object& inner : seen_through(one)) all.push_back(std::move(inner));
    } else {
      all.push_back(one);
    }
  }
  return all;
}

/// dependentRequired and dependentSchemas: either the name is absent, or what depends on it holds.
void Normalizer::add_dependent(const json::object& schema, Alternatives& all) {
  for (const char* keyword : {"dependentRequired", "dependentSchemas"}) {
    const json::value* const value = schema.if_contains(keyword);
    if (value == nullptr || !value->is_object()) continue;
    for (const auto& [name, needed] : value->get_object()) {
      json::object present{{"required", json::array{name}}};
      Alternatives with = {present};
      if (needed.is_array()) {
        for (const json::value& other : needed.get_array()) {
          with.front()["required"].get_array().push_back(other);
        }
      } else {
        with = joined(with, alternatives(needed));
      }
      with.push_back({{"properties", {{name, false}}}});
      Alternatives next = joined(all, with);
      if (next.empty()) {
        note(fmt::format("`{}`", keyword));
      } else {
        all = std::move(next);
      }
    }
  }
}

/// Everything that is valid for one of `some` and one of `others`.
Alternatives Normalizer::joined(const Alternatives& some, const Alternatives& others) {
  if (some.size() > 1 && others.size() > 1 && some.size() * others.size() > kAlternativesMax) {
    note("one of too many combinations");
    return some;
  }
  Alternatives all;
  for (const json::object& one : some) {
    for (const json::object& other : others) {
      for (json::object& both : joined_pair(one, other)) all.push_back(std::move(both));
      if (all.size() > kAlternativesMax && some.size() > 1) {
        note("one of too many combinations");
        return some;
      }
    }
  }
  return all;
}

Alternatives Normalizer::joined_pair(const json::object& one, const json::object& other) {
  if (one.empty() || one == other) return {other};
  if (other.empty()) return {one};
  if (one.contains("$ref")) return joined(seen_through(one), {other});
  if (other.contains("$ref")) return joined({one}, seen_through(other));
  if (++nodes_ > kSchemaNodesMax) {
    note("one of too many combinations");
    return {one};
  }
  std::optional<json::object> both =
      merged(one, other, [this](std::string_view what) { note(what); });
  return both ? Alternatives{*std::move(both)} : Alternatives{};
}

/// What a reference stands for. Never a reference.
Alternatives Normalizer::seen_through(const json::object& reference) {
  const json::value& name = reference.at("$ref");
  const json::value* const target =
      name.is_string() ? target_of(root_, name.get_string()) : nullptr;
  // What is merged with itself says nothing new, and would go on for ever.
  if (target == nullptr || depth_ >= kSchemaDepthMax / 2 || !opening_.insert(target).second) {
    note(fmt::format("`$ref` to {}", json::serialize(name)));
    return {{}};
  }
  Alternatives all;
  ++depth_;
  for (json::object& one : alternatives(*target)) {
    if (!one.contains("$ref")) {
      all.push_back(std::move(one));
      continue;
    }
    for (json::object& inner : seen_through(one)) all.push_back(std::move(inner));
  }
  --depth_;
  opening_.erase(target);
  return all;
}

/// Takes what is valid for `other` from `one`; where `other` refers to several, what is valid for
/// the last of them that has something to take. False where there is no way to say it of each.
bool Normalizer::set_apart(json::object& one, const json::object& other) {
  const Alternatives mine = opened({one});
  bool is_apart = true;
  for (const json::object& theirs : opened({other})) {
    const auto apart = mine.size() == 1 ? without(mine.front(), theirs) : std::nullopt;
    if (!apart) {
      is_apart = false;
    } else if (*apart != mine.front()) {
      one = *apart;
    }
  }
  return is_apart;
}

/// Everything that is valid for one of `bases` and exactly one of `branches`.
Alternatives Normalizer::exclusive(const Alternatives& bases,
                                   const std::vector<Alternatives>& branches) {
  Alternatives all;
  const bool is_small = branches.size() <= kExclusiveMax;
  bool is_exact = is_small;
  for (const json::object& base : bases) {
    std::vector<Alternatives> with;
    for (const Alternatives& branch : branches) with.push_back(joined({base}, branch));
    for (std::size_t mine = 0; mine < with.size(); ++mine) {
      for (const json::object& one : with[mine]) {
        json::object narrow = one;
        for (std::size_t other = 0; other < with.size() && is_small; ++other) {
          if (other == mine) continue;
          for (const json::object& theirs : with[other]) {
            if (!set_apart(narrow, theirs)) is_exact = false;
          }
        }
        all.push_back(std::move(narrow));
      }
    }
  }
  if (!is_exact) note("that only one of `oneOf` is valid");
  return all;
}

}  // namespace

NormalizedSchema normalized_schema(std::string_view schema, SchemaPlace place,
                                   const CanFollowPattern& can_follow) {
  json::parse_options options;
  options.max_depth = kParseDepthMax;
  boost::system::error_code error;
  json::value root = json::parse(schema, error, {}, options);
  const bool is_tool = place == SchemaPlace::kToolInput;
  if (error) return {is_tool ? R"({"type":"object"})" : "{}", {"what is no JSON"}};
  return Normalizer(std::move(root), can_follow).run(place);
}

}  // namespace pensieve::engine
