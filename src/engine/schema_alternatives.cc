#include "engine/schema_alternatives.h"

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/core.h>

#include "engine/schema_drafts.h"
#include "engine/schema_normalize.h"
#include "engine/schema_pointer.h"

namespace pensieve::engine {
namespace {

namespace json = boost::json;

constexpr std::size_t kExclusiveMax = 64;  // Branches of a oneOf that are told apart.

bool is_annotation(std::string_view keyword) {
  static const std::set<std::string_view> kAnnotations = {
      "title",    "description", "default",  "examples",        "deprecated",
      "readOnly", "writeOnly",   "$comment", "$schema",         "$id",
      "id",       "$defs",       "$anchor",  "definitions",     "example",
      "nullable", "$vocabulary", "strict",   "contentEncoding", "contentMediaType"};
  return kAnnotations.contains(keyword) || keyword.starts_with("x-");
}

}  // namespace

Alternatives AlternativeFinder::of(const json::value& schema) {
  if (schema.is_bool()) return schema.get_bool() ? Alternatives{{}} : Alternatives{};
  const json::object* const object = schema.if_object();
  if (object == nullptr || effort_.depth >= kSchemaDepthMax || ++effort_.nodes > kSchemaNodesMax) {
    note_("a schema that is too large, or none");
    return {{}};
  }
  ++effort_.depth;
  Alternatives all = of_object(*object);
  --effort_.depth;
  return all;
}

Alternatives AlternativeFinder::of_object(const json::object& schema) {
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
      note_("a schema for which nothing is valid");
    } else {
      all = std::move(next);
    }
  };
  if (const json::value* const reference = schema.if_contains("$ref")) {
    narrow(joined(all, {{{"$ref", *reference}}}));
  }
  if (const json::value* const parts = schema.if_contains("allOf"); parts && parts->is_array()) {
    for (const json::value& part : parts->get_array()) narrow(joined(all, of(part)));
  }
  for (const char* keyword : {"anyOf", "oneOf"}) {
    const json::value* const parts = schema.if_contains(keyword);
    if (parts == nullptr || !parts->is_array() || parts->get_array().empty()) continue;
    std::vector<Alternatives> branches;
    Alternatives any;
    for (const json::value& part : parts->get_array()) {
      branches.push_back(of(part));
      any.insert(any.end(), branches.back().begin(), branches.back().end());
    }
    narrow(keyword == std::string_view("oneOf") ? exclusive(all, branches) : joined(all, any));
  }
  add_dependent(plain, all);
  add_conditions(plain, all);
  return all;
}

/// `not`, and `if` as two branches: it and `then`, or not it and `else`.
void AlternativeFinder::add_conditions(const json::object& schema, Alternatives& all) {
  if (const json::value* const forbidden = schema.if_contains("not")) {
    if (std::optional<Alternatives> left = all_without(all, of(*forbidden))) {
      all = *std::move(left);
    } else {
      note_("`not`");
    }
  }
  const json::value* const condition = schema.if_contains("if");
  const json::value* const then = schema.if_contains("then");
  const json::value* const otherwise = schema.if_contains("else");
  if (condition == nullptr || (then == nullptr && otherwise == nullptr)) return;
  const Alternatives met = of(*condition);
  std::optional<Alternatives> next = all_without(all, met);
  if (!next) return note_("`if`");
  if (otherwise != nullptr) next = joined(*next, of(*otherwise));
  Alternatives with = joined(all, met);
  if (then != nullptr) with = joined(with, of(*then));
  next->insert(next->end(), with.begin(), with.end());
  if (next->empty() || next->size() > kAlternativesMax) return note_("`if`");
  all = *std::move(next);
}

/// What of `all` is valid for none of `others`. Empty where there is no way to say so.
std::optional<Alternatives> AlternativeFinder::all_without(const Alternatives& all,
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
Alternatives AlternativeFinder::opened(const Alternatives& some) {
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
void AlternativeFinder::add_dependent(const json::object& schema, Alternatives& all) {
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
        with = joined(with, of(needed));
      }
      with.push_back({{"properties", {{name, false}}}});
      Alternatives next = joined(all, with);
      if (next.empty()) {
        note_(fmt::format("`{}`", keyword));
      } else {
        all = std::move(next);
      }
    }
  }
}

Alternatives AlternativeFinder::joined(const Alternatives& some, const Alternatives& others) {
  if (some.size() > 1 && others.size() > 1 && some.size() * others.size() > kAlternativesMax) {
    note_("one of too many combinations");
    return some;
  }
  Alternatives all;
  for (const json::object& one : some) {
    for (const json::object& other : others) {
      for (json::object& both : joined_pair(one, other)) all.push_back(std::move(both));
      if (all.size() > kAlternativesMax && some.size() > 1) {
        note_("one of too many combinations");
        return some;
      }
    }
  }
  return all;
}

Alternatives AlternativeFinder::joined_pair(const json::object& one, const json::object& other) {
  if (one.empty() || one == other) return {other};
  if (other.empty()) return {one};
  if (one.contains("$ref")) return joined(seen_through(one), {other});
  if (other.contains("$ref")) return joined({one}, seen_through(other));
  if (++effort_.nodes > kSchemaNodesMax) {
    note_("one of too many combinations");
    return {one};
  }
  std::optional<json::object> both = merged(one, other, note_);
  return both ? Alternatives{*std::move(both)} : Alternatives{};
}

/// What a reference stands for. Never a reference.
Alternatives AlternativeFinder::seen_through(const json::object& reference) {
  const json::value& name = reference.at("$ref");
  const json::value* const target =
      name.is_string() ? target_of(root_, name.get_string()) : nullptr;
  // What is merged with itself says nothing new, and would go on for ever.
  if (target == nullptr || effort_.depth >= kSchemaDepthMax / 2 ||
      !opening_.insert(target).second) {
    note_(fmt::format("`$ref` to {}", json::serialize(name)));
    return {{}};
  }
  Alternatives all;
  ++effort_.depth;
  for (json::object& one : of(*target)) {
    if (!one.contains("$ref")) {
      all.push_back(std::move(one));
      continue;
    }
    for (json::object& inner : seen_through(one)) all.push_back(std::move(inner));
  }
  --effort_.depth;
  opening_.erase(target);
  return all;
}

/// Takes what is valid for `other` from each of `some`; either may refer to several. False where
/// there is no way to say it of all of them; what can be said is taken all the same.
bool AlternativeFinder::set_apart(Alternatives& some, const json::object& other) {
  Alternatives left = opened(some);
  bool is_apart = true;
  bool is_changed = false;
  for (const json::object& theirs : opened({other})) {
    for (json::object& one : left) {
      // From what is left of it, so that nothing comes back.
      std::optional<json::object> apart = without(one, theirs);
      if (!apart) {
        is_apart = false;
      } else if (*apart != one) {
        one = *std::move(apart);
        is_changed = true;
      }
    }
  }
  if (is_changed) some = std::move(left);  // Else a reference stays what it is.
  return is_apart;
}

/// Everything that is valid for one of `bases` and exactly one of `branches`.
Alternatives AlternativeFinder::exclusive(const Alternatives& bases,
                                          const std::vector<Alternatives>& branches) {
  Alternatives all;
  const bool is_small = branches.size() <= kExclusiveMax;
  bool is_exact = is_small;
  for (const json::object& base : bases) {
    std::vector<Alternatives> with;
    for (const Alternatives& branch : branches) with.push_back(joined({base}, branch));
    for (std::size_t mine = 0; mine < with.size(); ++mine) {
      for (const json::object& one : with[mine]) {
        Alternatives narrow = {one};
        for (std::size_t other = 0; other < with.size() && is_small; ++other) {
          if (other == mine) continue;
          for (const json::object& theirs : with[other]) {
            if (!set_apart(narrow, theirs)) is_exact = false;
          }
        }
        for (json::object& left : narrow) all.push_back(std::move(left));
      }
    }
  }
  if (!is_exact) note_("that only one of `oneOf` is valid");
  return all;
}

}  // namespace pensieve::engine
