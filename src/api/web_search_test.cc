#include "api/web_search.h"

#include <gtest/gtest.h>

#include "api/testing/bodies.h"

namespace pensieve::api {
namespace {

constexpr std::string_view kSearch = R"({"type":"web_search_20250305","name":"web_search"})";
constexpr std::string_view kHi = R"([{"role":"user","content":"Rust news"}])";

MessagesRequest asked(std::string_view messages, std::string_view more = "",
                      std::string_view tools = kSearch) {
  const auto request =
      parse_with(messages, R"("tools":[)" + std::string(tools) + "]" + std::string(more));
  EXPECT_TRUE(request) << request.error().message;
  return request ? *request : MessagesRequest{};
}

TEST(WebSearchTest, ASearchThatIsAllThatIsOfferedFailsAndTheModelIsTold) {
  const MessagesRequest request = asked(kHi);
  EXPECT_EQ(request.failed_search, "Rust news");
  ASSERT_EQ(request.prompt.messages.size(), 2U);
  EXPECT_EQ(request.prompt.messages[1].role, engine::Role::kSystem);
  EXPECT_NE(request.prompt.messages[1].text.find("no web search"), std::string::npos);
  EXPECT_TRUE(request.prompt.tools.empty());
}

TEST(WebSearchTest, TheNoteIsCountedToo) {
  const std::string body = R"({"model":"m","max_tokens":1,"messages":)" + std::string(kHi) +
                           R"(,"tools":[)" + std::string(kSearch) + "]}";
  const auto counted = parse_count_tokens_request(body);
  ASSERT_TRUE(counted);
  EXPECT_EQ(counted->prompt, parse_messages_request(body)->prompt);
}

TEST(WebSearchTest, ASystemMessageAtTheEndTakesTheNote) {
  const MessagesRequest request =
      asked(R"([{"role":"user","content":"a"},{"role":"system","content":"Be brief."}])");
  EXPECT_EQ(request.failed_search, "a");
  ASSERT_EQ(request.prompt.messages.size(), 2U);
  EXPECT_TRUE(request.prompt.messages[1].text.starts_with("Be brief.\nA web search"));
}

TEST(WebSearchTest, AChoiceThatForcesACallIsMetByIt) {
  for (const char* choice :
       {R"({"type":"any"})", R"({"type":"auto"})", R"({"type":"tool","name":"web_search"})"}) {
    const MessagesRequest request = asked(kHi, R"(,"tool_choice":)" + std::string(choice));
    EXPECT_EQ(request.failed_search, "Rust news") << choice;
    EXPECT_EQ(request.prompt.rules.tool_choice, engine::ToolChoice::kAuto) << choice;
  }
}

TEST(WebSearchTest, WithoutACallThereIsNoSearch) {
  const std::string both =
      std::string(kSearch) + R"(,{"name":"read","input_schema":{"type":"object"}})";
  EXPECT_FALSE(asked(kHi, "", both).failed_search);
  EXPECT_FALSE(asked(kHi, R"(,"tool_choice":{"type":"none"})").failed_search);
  EXPECT_FALSE(asked(kHi, "", "").failed_search);
  const MessagesRequest continued =
      asked(R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])");
  EXPECT_FALSE(continued.failed_search);
  EXPECT_EQ(continued.prompt.messages.size(), 2U);
}

TEST(WebSearchTest, ALongQueryEndsWithAWholeCharacter) {
  const auto query_of = [](const std::string& text) {
    return asked(R"([{"role":"user","content":")" + text + R"("}])").failed_search.value();
  };
  const std::string full(kQueryBytesMax, 'q');
  EXPECT_EQ(query_of(full), full);
  EXPECT_EQ(query_of(full + "q"), full);
  const std::string but_one(kQueryBytesMax - 1, 'q');
  EXPECT_EQ(query_of(but_one + "\xC3\xA9"), but_one);
}

}  // namespace
}  // namespace pensieve::api
