#include "engine/schema_normalize.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/core.h>
#include <boost/json.hpp>

#include "engine/json_numbers.h"
#include "engine/schema_alternatives.h"
#include "engine/schema_keywords.h"
#include "engine/schema_nesting.h"
#include "engine/schema_pointer.h"

namespace pensieve::engine {
namespace {

namespace json = boost::json;

constexpr int kParseDepthMax = 256;     // More than any request has (kJsonDepthMax).
constexpr std::size_t kNotesMax = 32;   // Of one schema.
constexpr int kReferenceStepsMax = 32;  // References to references to references.

bool is_reference(const json::object& schema) {
  return schema.size() == 1 && schema.contains("$ref");
}

class Normalizer {
 public:
  Normalizer(json::value root, const CanFollowPattern& can_follow)
      : root_(std::move(root)), can_follow_(can_follow) {}
  Normalizer(const Normalizer&) = delete;
  Normalizer& operator=(const Normalizer&) = delete;

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

  void note(std::string_view what) {
    std::string text = fmt::format("{} at {}", what, place_.empty() ? "/" : place_);
    const bool is_told = std::find(notes_.begin(), notes_.end(), text) != notes_.end();
    if (notes_.size() < kNotesMax && !is_told) notes_.push_back(std::move(text));
  }

  const json::value root_;
  const CanFollowPattern& can_follow_;
  std::vector<std::string> notes_;
  std::string place_;
  SchemaEffort effort_;
  const SchemaNote note_ = [this](std::string_view what) { note(what); };  // Is lent out.
  AlternativeFinder finder_{root_, effort_, note_};
  json::object definitions_;
  std::map<std::string, std::string, std::less<>> names_;  // By reference, or by a schema's text.
};

json::value Normalizer::object_root() {
  const Alternatives objects = finder_.joined(finder_.of(root_), {{{"type", "object"}}});
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
  if (effort_.depth >= kSchemaDepthMax || ++effort_.nodes > kSchemaNodesMax) {
    note("a schema that is too large");
    return json::object();
  }
  ++effort_.depth;
  json::value out = written_object(*object);
  --effort_.depth;
  return out;
}

/// What merges references is written once, under a name: it may be inside itself.
json::value Normalizer::written_object(const json::object& schema) {
  const bool may_recur = schema.contains("allOf") || (schema.contains("$ref") && schema.size() > 1);
  if (!may_recur) return written_alternatives(finder_.of(schema));
  std::string key = json::serialize(schema);
  const auto known = names_.find(key);
  if (known != names_.end()) return json::object{{"$ref", "#/$defs/" + known->second}};
  const std::string name = fmt::format("d{}", names_.size());
  names_.emplace(std::move(key), name);
  json::value out = written_alternatives(finder_.of(schema));
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
                       .note = note_,
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

}  // namespace

NormalizedSchema normalized_schema(std::string_view schema, SchemaPlace place,
                                   const CanFollowPattern& can_follow) {
  json::parse_options options;
  options.max_depth = kParseDepthMax;
  boost::system::error_code error;
  json::value root = json::parse(with_finite_numbers(schema), error, {}, options);
  const bool is_tool = place == SchemaPlace::kToolInput;
  if (error) return {is_tool ? R"({"type":"object"})" : "{}", {"what is no JSON"}};
  return Normalizer(std::move(root), can_follow).run(place);
}

}  // namespace pensieve::engine
