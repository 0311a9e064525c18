#include <vector>

#include <gtest/gtest.h>
#include <boost/json.hpp>

#include "api/response.h"

namespace pensieve::api {
namespace {

Model model(std::string id) {
  return {.id = std::move(id),
          .display_name = "Shown",
          .created_at = WallTime(std::chrono::seconds(1'767'225'600)),  // 2026-01-01.
          .input_tokens_max = 8192,
          .output_tokens_max = 4096,
          .capabilities = Capabilities{.batches = true, .engine = {.structured_outputs = true}}};
}

const std::vector<Model> kModels = {model("a"), model("b"), model("c"), model("d")};

/// The ids of a page, and "+" where there are more.
std::string listed(const Page& page, const std::vector<Model>& models = kModels) {
  const boost::json::value body = boost::json::parse(models_body(models, page));
  std::string ids;
  for (const auto& item : body.at("data").as_array()) ids += item.at("id").as_string().c_str();
  if (ids.empty()) {
    EXPECT_TRUE(body.at("first_id").is_null());
    EXPECT_TRUE(body.at("last_id").is_null());
  } else {
    EXPECT_EQ(body.at("first_id"), body.at("data").as_array().front().at("id"));
    EXPECT_EQ(body.at("last_id"), body.at("data").as_array().back().at("id"));
  }
  return body.at("has_more").as_bool() ? ids + "+" : ids;
}

Page page(std::uint32_t limit, std::string after_id = "", std::string before_id = "") {
  return {limit, std::move(after_id), std::move(before_id)};
}

std::string page_refusal(std::string_view query) {
  const auto parsed = parse_page(query);
  if (parsed) return "accepted";
  EXPECT_EQ(parsed.error().status, 400U);
  return parsed.error().message;
}

TEST(ModelBodyTest, HasTheExactShape) {
  EXPECT_EQ(model_body(model("Qwen/Qwen3-8B:Q4_K_M")),
            R"({"type":"model","id":"Qwen/Qwen3-8B:Q4_K_M","display_name":"Shown",)"
            R"("created_at":"2026-01-01T00:00:00Z","max_input_tokens":8192,"max_tokens":4096,)"
            R"("lifecycle":"active","capabilities":{"messages":{"supported":true},)"
            R"("embeddings":{"supported":false},"batch":{"supported":true},)"
            R"("citations":{"supported":false},"code_execution":{"supported":false},)"
            R"("image_input":{"supported":false},"pdf_input":{"supported":false},)"
            R"("structured_outputs":{"supported":true},"context_management":{"supported":false},)"
            R"("effort":{"supported":false,"low":{"supported":false},"medium":{"supported":false},)"
            R"("high":{"supported":false},"xhigh":{"supported":false},"max":{"supported":false}},)"
            R"("server_tools":{"supported":false,"web_search":{"supported":false},)"
            R"("code_execution":{"supported":false}},"thinking":{"supported":false,"types":)"
            R"({"adaptive":{"supported":false},"between_tools":{"supported":true},)"
            R"("disabled":{"supported":true},"enabled":{"supported":false}}}},)"
            R"("object":"model","created":1767225600,"owned_by":"pensieve"})");
}

/// The paths of all that is supported, in their order.
std::vector<std::string> supported(const Capabilities& capabilities) {
  Model able = model("a");
  able.capabilities = capabilities;
  std::vector<std::string> paths;
  const auto walk = [&paths](const auto& self, const std::string& path,
                             const boost::json::object& members) -> void {
    for (const auto& [name, member] : members) {
      const std::string inner = path.empty() ? std::string(name) : path + "." + std::string(name);
      if (name == "supported") {
        if (member.as_bool()) paths.push_back(path);
      } else {
        self(self, inner, member.as_object());
      }
    }
  };
  walk(walk, "", boost::json::parse(model_body(able)).at("capabilities").as_object());
  return paths;
}

TEST(ModelBodyTest, EachCapabilityIsSaidUnderItsOwnName) {
  using Paths = std::vector<std::string>;
  const std::string between = "thinking.types.between_tools";
  const std::string disabled = "thinking.types.disabled";
  EXPECT_EQ(supported({}), (Paths{"messages", between, disabled}));
  EXPECT_EQ(supported({.batches = true}), (Paths{"messages", "batch", between, disabled}));
  EXPECT_EQ(supported({.engine = {.structured_outputs = true}}),
            (Paths{"messages", "structured_outputs", between, disabled}));
  EXPECT_EQ(supported({.engine = {.image_input = true}}),
            (Paths{"messages", "image_input", between, disabled}));
  EXPECT_EQ(supported({.batches = true, .engine = {.embeddings = true}}),
            (Paths{"embeddings", between, disabled}));
  EXPECT_EQ(supported({.engine = {.thinking = true}}),
            (Paths{"messages", "effort", "effort.low", "effort.medium", "effort.high", "thinking",
                   "thinking.types.adaptive", between, disabled, "thinking.types.enabled"}));
}

TEST(ModelBodyTest, CapabilitiesThatAreNotKnownYetAreNull) {
  Model unknown = model("a");
  unknown.capabilities.reset();
  EXPECT_NE(model_body(unknown).find(R"("lifecycle":"active","capabilities":null,"object")"),
            std::string::npos);
}

TEST(ModelBodyTest, AWindowThatIsNotKnownYetIsNullAndNotZero) {
  Model unknown = model("a");
  unknown.input_tokens_max.reset();
  unknown.output_tokens_max.reset();
  EXPECT_NE(model_body(unknown).find(R"("max_input_tokens":null,"max_tokens":null,)"),
            std::string::npos);
}

TEST(ModelsBodyTest, HasTheExactShape) {
  const std::vector<Model> one = {model("a")};
  EXPECT_EQ(models_body(one, {}),
            R"({"data":[)" + model_body(one[0]) +
                R"(],"has_more":false,"first_id":"a","last_id":"a","object":"list"})");
  EXPECT_EQ(models_body({}, {}), R"({"data":[],"has_more":false,"first_id":null,"last_id":null,)"
                                 R"("object":"list"})");
}

TEST(ModelsBodyTest, PagesForward) {
  EXPECT_EQ(listed(page(20)), "abcd");
  EXPECT_EQ(listed(page(4)), "abcd");
  EXPECT_EQ(listed(page(3)), "abc+");
  EXPECT_EQ(listed(page(3, "c")), "d");
  EXPECT_EQ(listed(page(2, "a")), "bc+");
  EXPECT_EQ(listed(page(3, "a")), "bcd");
  EXPECT_EQ(listed(page(3, "d")), "");
}

TEST(ModelsBodyTest, PagesBackward) {
  EXPECT_EQ(listed(page(2, "", "d")), "bc+");
  EXPECT_EQ(listed(page(3, "", "d")), "abc");
  EXPECT_EQ(listed(page(1, "", "a")), "");
}

TEST(ModelsBodyTest, AnUnknownCursorEndsTheListing) {
  EXPECT_EQ(listed(page(3, "gone")), "");
  EXPECT_EQ(listed(page(3, "", "gone")), "");
}

TEST(ParsePageTest, HasDefaultsAndIgnoresWhatItDoesNotKnow) {
  for (const std::string_view query : {"", "beta=true", "&&", "limit", "limit=", "=", "x=%ZZ&"}) {
    const auto parsed = parse_page(query);
    ASSERT_TRUE(parsed) << query;
    EXPECT_EQ(parsed->limit, 20U);
    EXPECT_EQ(parsed->after_id, "");
    EXPECT_EQ(parsed->before_id, "");
  }
}

TEST(ParsePageTest, ReadsEncodedCursors) {
  const auto after = parse_page("beta=true&after_id=Qwen%2FQwen3:8B+x&limit=1000");
  ASSERT_TRUE(after);
  EXPECT_EQ(after->after_id, "Qwen/Qwen3:8B x");
  EXPECT_EQ(after->limit, 1000U);
  EXPECT_EQ(parse_page("before_id=b")->before_id, "b");
}

TEST(ParsePageTest, RefusesLimitsOutOfRange) {
  EXPECT_EQ(page_refusal("limit=1"), "accepted");
  EXPECT_EQ(page_refusal("limit=0"), "limit: Input should be greater than or equal to 1");
  EXPECT_EQ(page_refusal("limit=1001"), "limit: Input should be less than or equal to 1000");
  EXPECT_EQ(page_refusal("limit=99999999999"), "limit: Input should be less than or equal to 1000");
  for (const std::string_view query : {"limit=x", "limit=-1", "limit=1.5", "limit=1x"}) {
    EXPECT_EQ(page_refusal(query), "limit: Input should be a valid integer") << query;
  }
}

TEST(ParsePageTest, RefusesTwoDirectionsAtOnce) {
  EXPECT_EQ(page_refusal("after_id=a&before_id=b"),
            "after_id and before_id cannot be used together");
}

TEST(PercentDecodedTest, DecodesEscapesAndLeavesBadOnes) {
  EXPECT_EQ(percent_decoded("Qwen%2FQwen3-8B:Q4_K_M"), "Qwen/Qwen3-8B:Q4_K_M");
  EXPECT_EQ(percent_decoded("%2f%C3%a9"), "/\xC3\xA9");
  EXPECT_EQ(percent_decoded("%"), "%");
  EXPECT_EQ(percent_decoded("%2"), "%2");
  EXPECT_EQ(percent_decoded("%2G%G2%%41"), "%2G%G2%A");
  EXPECT_EQ(percent_decoded("a+b"), "a+b");
  EXPECT_EQ(percent_decoded("%252F"), "%2F");
}

}  // namespace
}  // namespace pensieve::api
