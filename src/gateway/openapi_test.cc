// The OpenAPI description: served, about this version, and each of its routes is one of the server.
#include "gateway/openapi.h"

#include <cctype>
#include <string>

#include <gtest/gtest.h>
#include <boost/json.hpp>

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

TEST(OpenApi, EachOfItsRoutesIsOneOfTheServer) {
  const json::value document = json::parse(openapi_document());
  TestServer server;
  for (const auto& [path, methods] : document.at("paths").as_object()) {
    for (const auto& [name, operation] : methods.as_object()) {
      if (name == "head") continue;  // The probe would wait for the body that it announces.
      std::string method(name);
      for (char& c : method) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      const std::string request = method + " " + std::string(path) +
                                  " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
      const Answer answer = server.answer(request);
      EXPECT_NE(answer.status, 405U) << request;
      EXPECT_EQ(answer.body.find("no route"), std::string::npos) << request << answer.body;
    }
  }
}

}  // namespace
}  // namespace pensieve::gateway
