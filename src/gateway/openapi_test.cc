// The OpenAPI description: served, about this version, and of exactly the routes that there are.
#include "gateway/openapi.h"

#include <cctype>
#include <set>
#include <string>

#include <gtest/gtest.h>
#include <boost/json.hpp>

#include "gateway/routes.h"
#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

namespace json = boost::json;

TEST(OpenApi, IsServedAsItIs) {
  TestServer server;
  const Answer answer = server.answer(get("/openapi.json"));
  EXPECT_EQ(answer.status, 200U);
  EXPECT_EQ(answer.header("content-type"), "application/json");
  EXPECT_EQ(answer.body, openapi_document());
}

TEST(OpenApi, IsAboutThisVersion) {
  const json::value document = json::parse(openapi_document());
  EXPECT_EQ(document.at("info").at("version").as_string(), PENSIEVE_VERSION);
  EXPECT_EQ(document.at("openapi").as_string(), "3.1.0");
}

/// "GET /health" and so on.
using Operations = std::set<std::string>;

Operations described() {
  const json::value document = json::parse(openapi_document());
  Operations operations;
  for (const auto& [path, methods] : document.at("paths").as_object()) {
    for (const auto& [name, operation] : methods.as_object()) {
      std::string method(name);
      for (char& c : method) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      operations.insert(method + " " + std::string(path));
    }
  }
  return operations;
}

Operations routed() {
  Operations operations;
  for (const Route& route : kRoutes) {
    for (const char* method : {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}) {
      if (allows(route, method)) operations.insert(method + (" " + std::string(route.path)));
    }
  }
  return operations;
}

TEST(OpenApi, EachOfItsOperationsIsOneOfTheServer) {
  const Operations routes = routed();
  for (const std::string& operation : described()) {
    EXPECT_TRUE(routes.contains(operation)) << operation;
  }
}

TEST(OpenApi, EachRouteOfTheServerIsInIt) {
  const Operations operations = described();
  for (const std::string& route : routed()) {
    // What can be got has a head, too.
    const bool is_head = route.starts_with("HEAD ") && operations.contains("GET" + route.substr(4));
    EXPECT_TRUE(is_head || operations.contains(route)) << route;
  }
}

TEST(OpenApi, EachRouteOfTheServerIsAnswered) {
  TestServer server;
  for (const std::string& route : routed()) {
    if (route.starts_with("HEAD ")) continue;  // The probe would wait for the body it announces.
    const std::string request = route + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    const Answer answer = server.answer(request);
    EXPECT_NE(answer.status, 405U) << request;
    EXPECT_NE(answer.status, 500U) << request << answer.body;
    EXPECT_EQ(answer.body.find("no route"), std::string::npos) << request << answer.body;
  }
}

}  // namespace
}  // namespace pensieve::gateway
