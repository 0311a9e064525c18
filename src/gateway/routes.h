// Every route of the server. What is not in this table is answered with 404 or 405 before anything
// else looks at it, and docs/openapi.json describes exactly these.
#pragma once

#include <array>
#include <string_view>

namespace pensieve::gateway {

struct Route {
  std::string_view path;     // "{id}" stands for one part, at least one character long.
  std::string_view methods;  // As the `allow` header has them. OPTIONS belongs to every path.
};

inline constexpr std::array kRoutes = {
    Route{"/", "GET, HEAD"},
    Route{"/health", "GET, HEAD"},
    Route{"/metrics", "GET, HEAD"},
    Route{"/openapi.json", "GET, HEAD"},
    Route{"/v1/pensieve/ps", "GET, HEAD"},
    Route{"/v1/pensieve/memory/history", "GET, HEAD"},
    Route{"/v1/pensieve/clear-cache", "POST"},
    Route{"/v1/pensieve/stop", "POST"},
    Route{"/v1/messages", "POST"},
    Route{"/v1/messages/count_tokens", "POST"},
    Route{"/v1/messages/batches", "GET, HEAD, POST"},
    Route{"/v1/messages/batches/{id}", "GET, HEAD, DELETE"},
    Route{"/v1/messages/batches/{id}/cancel", "POST"},
    Route{"/v1/messages/batches/{id}/results", "GET, HEAD"},
    Route{"/v1/models", "GET, HEAD"},
    Route{"/v1/models/{id}", "GET, HEAD"},
    Route{"/v1/chat/completions", "POST"},
    Route{"/v1/embeddings", "POST"},
};

/// The route of `path`, which has no query; null where there is none. Ids of models may have
/// slashes, so that one takes all that is left of the path.
const Route* find_route(std::string_view path);

/// Whether `method` is one of the route's.
bool allows(const Route& route, std::string_view method);

}  // namespace pensieve::gateway
