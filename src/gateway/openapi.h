// The OpenAPI description of every route, docs/openapi.json, as it was when the program was built.
#pragma once

#include <string_view>

namespace pensieve::gateway {

/// JSON text; lives as long as the program.
std::string_view openapi_document();

}  // namespace pensieve::gateway
