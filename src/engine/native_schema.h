// What is left of a JSON schema that llama.cpp cannot convert into a grammar. Pure.
#pragma once

#include <string>
#include <string_view>

namespace pensieve::engine {

/// The outline of a tool's `schema`: an object with the same properties, of which the same are
/// required, each of its plain type, or of any where that is not one of JSON's. Forms that write
/// arguments one by one need their names, so that these stay. What is no object at all becomes an
/// object of any kind.
std::string schema_outline(std::string_view schema);

}  // namespace pensieve::engine
