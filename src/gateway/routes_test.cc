#include "gateway/routes.h"

#include <string>

#include <gtest/gtest.h>

namespace pensieve::gateway {
namespace {

std::string route_of(std::string_view path) {
  const Route* const route = find_route(path);
  return route == nullptr ? "none" : std::string(route->path);
}

TEST(RoutesTest, APathHasOneRoute) {
  EXPECT_EQ(route_of("/"), "/");
  EXPECT_EQ(route_of("/v1/messages"), "/v1/messages");
  EXPECT_EQ(route_of("/v1/messages/batches"), "/v1/messages/batches");
  EXPECT_EQ(route_of("/v1/messages/batches/b"), "/v1/messages/batches/{id}");
  EXPECT_EQ(route_of("/v1/messages/batches/b/cancel"), "/v1/messages/batches/{id}/cancel");
  EXPECT_EQ(route_of("/v1/messages/batches/results/results"), "/v1/messages/batches/{id}/results");
  EXPECT_EQ(route_of("/v1/models/m"), "/v1/models/{id}");
}

TEST(RoutesTest, OnlyAModelsIdHasSlashes) {
  EXPECT_EQ(route_of("/v1/models/qwen/qwen3:8b"), "/v1/models/{id}");
  EXPECT_EQ(route_of("/v1/messages/batches/a/b"), "none");
  EXPECT_EQ(route_of("/v1/messages/batches/a/b/cancel"), "none");
}

TEST(RoutesTest, WhatIsNotListedIsNone) {
  for (const char* path :
       {"", "*", "/v1", "/v1/", "/v1/messages/", "/v1/models/", "//", "/v1/messages/batches/",
        "/v1/messages/batches//cancel", "/v1/complete", "/V1/messages", "/v1/messages/{id}"}) {
    EXPECT_EQ(route_of(path), "none") << path;
  }
}

TEST(RoutesTest, WhatCanBeGotHasAHead) {
  for (const Route& route : kRoutes) {
    EXPECT_EQ(allows(route, "GET"), allows(route, "HEAD")) << route.path;
  }
}

TEST(RoutesTest, OnlyItsMethodsAreAllowed) {
  const Route route{"/", "GET, HEAD, POST"};
  for (const char* method : {"GET", "HEAD", "POST"}) EXPECT_TRUE(allows(route, method)) << method;
  for (const char* method :
       {"", "G", "GE", "get", "GET, HEAD", "HEAD, POST", "POST ", "PUT", ","}) {
    EXPECT_FALSE(allows(route, method)) << method;
  }
}

}  // namespace
}  // namespace pensieve::gateway
