// A JSON schema as simple ones, each of which is valid alone. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <vector>

#include <boost/json.hpp>

#include "engine/schema_merge.h"

namespace pensieve::engine {

/// Schemas without anyOf, oneOf, allOf, not and if; what is valid for one of them is valid. One
/// that is a reference is nothing else. Empty: nothing is valid.
using Alternatives = std::vector<boost::json::object>;

/// What a schema has taken so far, however it is looked at: all of it has one bound.
struct SchemaEffort {
  int depth = 0;          // Of schemas that are open; at most kSchemaDepthMax.
  std::size_t nodes = 0;  // At most kSchemaNodesMax.
};

/// Multiplies out what combines schemas: anyOf, oneOf and allOf beside other keywords, references
/// beside others, `not`, `if`, and names that depend on names. What cannot be said so is left out,
/// there alone, and told.
///
/// Ownership: borrows all. Thread-safety: one thread.
class AlternativeFinder {
 public:
  /// `root` is what references lead into.
  AlternativeFinder(const boost::json::value& root, SchemaEffort& effort, const SchemaNote& note)
      : root_(root), effort_(effort), note_(note) {}

  /// Of `schema`, which stands in `root` or is one that was made of it.
  Alternatives of(const boost::json::value& schema);
  /// Everything that is valid for one of `some` and one of `others`.
  Alternatives joined(const Alternatives& some, const Alternatives& others);

 private:
  Alternatives of_object(const boost::json::object& schema);
  void add_dependent(const boost::json::object& schema, Alternatives& all);
  void add_conditions(const boost::json::object& schema, Alternatives& all);
  std::optional<Alternatives> all_without(const Alternatives& all, const Alternatives& others);
  Alternatives opened(const Alternatives& some);
  Alternatives joined_pair(const boost::json::object& one, const boost::json::object& other);
  bool set_apart(Alternatives& some, const boost::json::object& other);
  Alternatives exclusive(const Alternatives& bases, const std::vector<Alternatives>& branches);
  Alternatives seen_through(const boost::json::object& reference);

  const boost::json::value& root_;
  SchemaEffort& effort_;
  const SchemaNote& note_;
  std::set<const boost::json::value*> opening_;  // Targets of references that are being merged.
};

}  // namespace pensieve::engine
