// What a request offers and demands: tools, the choice among them, and the form of the answer.
#include "api/tools.h"

#include <gtest/gtest.h>

#include "api/testing/bodies.h"

namespace pensieve::api {
namespace {

constexpr std::string_view kHi = R"([{"role":"user","content":"hi"}])";
constexpr std::string_view kTwo =
    R"("tools":[{"name":"a","description":"A","input_schema":{"type":"object" , "x":1.0}},)"
    R"({"type":"custom","name":"b","strict":true,"cache_control":{},"input_schema":{}}])";

engine::Prompt accepted(std::string_view members, std::string_view messages = kHi) {
  const auto request = parse_with(messages, members);
  EXPECT_TRUE(request) << request.error().message;
  return request ? request->prompt : engine::Prompt{};
}

std::string refused(std::string_view members) {
  return refusal_of(parse_with(kHi, members));
}

std::string with_choice(std::string_view choice) {
  return std::string(kTwo) + R"(,"tool_choice":)" + std::string(choice);
}

TEST(ToolsTest, KeepsNameDescriptionAndTheBytesOfTheSchema) {
  const engine::Prompt prompt = accepted(kTwo);
  ASSERT_EQ(prompt.tools.size(), 2U);
  EXPECT_EQ(prompt.tools[0].name, "a");
  EXPECT_EQ(prompt.tools[0].description, "A");
  EXPECT_EQ(prompt.tools[0].parameters, R"({"type":"object","x":1.0})");
  EXPECT_TRUE(prompt.tools[0].shown);
  EXPECT_EQ(prompt.tools[1].description, "");
}

TEST(ToolsTest, NoToolsNullAndAnEmptyListAreOne) {
  EXPECT_TRUE(accepted("").tools.empty());
  EXPECT_TRUE(accepted(R"("tools":null)").tools.empty());
  EXPECT_TRUE(accepted(R"("tools":[],"tool_choice":{"type":"auto"})").tools.empty());
}

TEST(ToolsTest, NamesWhatIsWrongWithATool) {
  EXPECT_EQ(refused(R"("tools":{})"), "tools: Input should be a valid list");
  EXPECT_EQ(refused(R"("tools":[1])"), "tools.0: Input should be an object");
  EXPECT_EQ(refused(R"("tools":[{"input_schema":{}}])"), "tools.0.name: Field required");
  EXPECT_EQ(refused(R"("tools":[{"name":"","input_schema":{}}])"),
            "tools.0.name: String should have at least 1 character");
  EXPECT_EQ(refused(R"("tools":[{"name":"a"}])"), "tools.0.input_schema: Field required");
  EXPECT_EQ(refused(R"("tools":[{"name":"a","input_schema":[]}])"),
            "tools.0.input_schema: Input should be an object");
  EXPECT_EQ(refused(R"("tools":[{"name":"a","input_schema":{},"defer_loading":1}])"),
            "tools.0.defer_loading: Input should be a valid boolean");
  EXPECT_EQ(refused(R"("tools":[{"name":"a","input_schema":{}},{"name":"a","input_schema":{}}])"),
            "tools: Tool names must be unique.");
  EXPECT_EQ(refused(R"("tools":[{"type":"bash_20250124","name":"bash"}])"),
            "tools.0.type: this server has no 'bash_20250124'; it takes tools with an "
            "input_schema of their own");
}

TEST(ToolsTest, ANameAtTheBoundIsTakenAndOneByteMoreIsNot) {
  const auto named = [](std::size_t bytes) {
    return R"("tools":[{"name":")" + std::string(bytes, 'n') + R"(","input_schema":{}}])";
  };
  EXPECT_EQ(accepted(named(kToolNameBytesMax)).tools.size(), 1U);
  EXPECT_EQ(refused(named(kToolNameBytesMax + 1)),
            "tools.0.name: String should have at most 128 bytes");
}

TEST(ToolsTest, AWebSearchIsNotOffered) {
  EXPECT_TRUE(
      accepted(R"("tools":[{"type":"web_search_20250305","name":"web_search"}])").tools.empty());
}

TEST(ToolsTest, ADeferredToolIsHiddenUntilAResultRefersToIt) {
  constexpr std::string_view kDeferred =
      R"("tools":[{"name":"later","description":"L","defer_loading":true,"input_schema":{"x":1}}])";
  EXPECT_TRUE(accepted(kDeferred).tools.empty());
  const engine::Prompt prompt = accepted(
      kDeferred, R"([{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":)"
                 R"([{"type":"tool_reference","tool_name":"later"}]}]}])");
  ASSERT_EQ(prompt.tools.size(), 1U);
  EXPECT_FALSE(prompt.tools[0].shown);
  EXPECT_EQ(prompt.messages[0].text,
            R"(<functions><function>{"description":"L","name":"later","parameters":{"x":1}})"
            "</function></functions>");
}

/// A conversation with these blocks in a system message behind the user's.
std::string with_changes(std::string_view blocks) {
  return R"([{"role":"user","content":"a"},{"role":"system","content":[)" + std::string(blocks) +
         "]}]";
}

constexpr std::string_view kShownAndLater =
    R"("tools":[{"name":"now","input_schema":{}},)"
    R"({"name":"later","description":"L","defer_loading":true,"input_schema":{"x":1}}])";
constexpr std::string_view kLater =
    R"(<functions><function>{"description":"L","name":"later","parameters":{"x":1}})"
    "</function></functions>";

std::vector<std::string> names(const engine::Prompt& prompt) {
  std::vector<std::string> all;
  for (const engine::Tool& tool : prompt.tools) all.push_back(tool.name);
  return all;
}

TEST(ToolsTest, AnAdditionShowsADeferredToolWhereItStands) {
  const engine::Prompt prompt = accepted(
      kShownAndLater,
      with_changes(R"({"type":"tool_addition","tool":{"type":"tool_reference","name":"later"}})"));
  EXPECT_EQ(names(prompt), (std::vector<std::string>{"now", "later"}));
  EXPECT_EQ(prompt.messages.at(1).text, kLater);
  const engine::Prompt again = accepted(
      kShownAndLater, with_changes(R"({"type":"tool_addition","tool":{"name":"later"}},)"
                                   R"({"type":"tool_addition","tool":{"name":"later"}},)"
                                   R"({"type":"tool_addition","tool":{"name":"now"}},)"
                                   R"({"type":"tool_addition","tool":{"name":"unknown"}})"));
  EXPECT_EQ(again.messages.at(1).text, kLater) << "once, and nothing of what is there already";
}

TEST(ToolsTest, AnAdditionMayDefineItsTool) {
  const engine::Prompt prompt = accepted(
      "", with_changes(R"({"type":"tool_addition","tool":{"type":"tool_definition","definition":)"
                       R"({"name":"later","description":"L","input_schema":{"x": 1}}}})"));
  ASSERT_EQ(names(prompt), std::vector<std::string>{"later"});
  EXPECT_EQ(prompt.tools[0].parameters, R"({"x":1})");
  EXPECT_FALSE(prompt.tools[0].shown);
  EXPECT_EQ(prompt.messages.at(1).text, kLater);
}

TEST(ToolsTest, ARemovedToolMayNotBeCalledUntilItIsAddedAgain) {
  constexpr std::string_view kRemoval =
      R"({"type":"tool_removal","tool":{"type":"tool_reference","name":"now"}})";
  const engine::Prompt removed = accepted(kShownAndLater, with_changes(kRemoval));
  EXPECT_TRUE(removed.tools.empty());
  EXPECT_EQ(removed.messages.at(1).text, "The tool now is not available any more.");
  const engine::Prompt back = accepted(
      kShownAndLater,
      with_changes(std::string(kRemoval) + R"(,{"type":"tool_addition","tool":{"name":"now"}})"));
  EXPECT_EQ(names(back), std::vector<std::string>{"now"});
  const engine::Prompt none =
      accepted(kShownAndLater, with_changes(R"({"type":"tool_removal","tool":{"name":"unknown"}},)"
                                            R"({"type":"text","text":"b"})"));
  EXPECT_EQ(none.messages.at(1).text, "b");
}

TEST(ToolsTest, AChangeOfToolsThatCannotBeUnderstoodNamesTheField) {
  const auto refused_change = [](std::string_view block) {
    return refusal_of(parse_with(with_changes(block)));
  };
  EXPECT_EQ(refused_change(R"({"type":"tool_addition"})"),
            "messages.1.content.0.tool: Field required");
  EXPECT_EQ(refused_change(R"({"type":"tool_removal","tool":1})"),
            "messages.1.content.0.tool: Input should be an object");
  EXPECT_EQ(refused_change(R"({"type":"tool_addition","tool":{}})"),
            "messages.1.content.0.tool.name: Field required");
  EXPECT_EQ(refused_change(R"({"type":"tool_addition","tool":{"definition":{"name":"x"}}})"),
            "messages.1.content.0.tool.definition.input_schema: Field required");
}

TEST(ToolsTest, EveryChoiceIsUnderstood) {
  using engine::ToolChoice;
  EXPECT_EQ(accepted(kTwo).rules.tool_choice, ToolChoice::kAuto);
  EXPECT_EQ(accepted(with_choice(R"({"type":"auto"})")).rules.tool_choice, ToolChoice::kAuto);
  EXPECT_EQ(accepted(with_choice(R"({"type":"any"})")).rules.tool_choice, ToolChoice::kAny);
  EXPECT_EQ(accepted(with_choice(R"({"type":"none"})")).rules.tool_choice, ToolChoice::kNone);
  const engine::AnswerRules named =
      accepted(with_choice(R"({"type":"tool","name":"b","disable_parallel_tool_use":true})")).rules;
  EXPECT_EQ(named.tool_choice, ToolChoice::kNamed);
  EXPECT_EQ(named.tool_name, "b");
  EXPECT_FALSE(named.parallel_calls);
}

TEST(ToolsTest, AChoiceThatCannotBeMadeIsRefused) {
  EXPECT_EQ(refused(with_choice(R"({"type":"tool","name":"c"})")),
            "tool_choice.name: Tool 'c' not found in provided tools");
  EXPECT_EQ(refused(with_choice(R"({"type":"tool"})")), "tool_choice.name: Field required");
  EXPECT_EQ(refused(with_choice(R"({"type":"some"})")),
            "tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'");
  EXPECT_EQ(refused(R"("tools":[{"type":"web_search_20250305"}],"tool_choice":{"type":"tool"})"),
            "tool_choice.name: Field required");
  EXPECT_EQ(refused(R"("tool_choice":{"type":"any"})"),
            "tool_choice: it needs tools, and the request has none");
}

TEST(ToolsTest, ASchemaForTheAnswerIsTakenInBothSpellings) {
  const std::string format = R"({"type":"json_schema","schema":{"type": "object"}})";
  EXPECT_EQ(
      accepted(R"("output_config":{"effort":"high","format":)" + format + "}").rules.json_schema,
      R"({"type":"object"})");
  EXPECT_EQ(accepted(R"("output_format":)" + format).rules.json_schema, R"({"type":"object"})");
  EXPECT_EQ(accepted(R"("output_config":{"effort":"high"})").rules.json_schema, "");
  EXPECT_EQ(refused(R"("output_config":{"format":{"type":"xml"}})"),
            "output_config.format.type: Input should be 'json_schema'");
  EXPECT_EQ(refused(R"("output_format":{"type":"json_schema","schema":1})"),
            "output_format.schema: Input should be an object");
  EXPECT_EQ(refused(R"("output_config":"high")"), "output_config: Input should be an object");
  // The older one goes before, and hides no mistake in the newer one.
  const std::string both = R"("output_format":)" + format + R"(,"output_config":{"format":)";
  EXPECT_EQ(accepted(both + R"({"type":"json_schema","schema":{"a":1}}})").rules.json_schema,
            R"({"type":"object"})");
  EXPECT_EQ(refused(both + "1}"), "output_config.format: Input should be an object");
}

}  // namespace
}  // namespace pensieve::api
