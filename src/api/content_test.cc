// Each kind of content block: what it becomes in the prompt, or how it is refused.
#include "api/content.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "api/testing/bodies.h"

namespace pensieve::api {
namespace {

using namespace std::literals;

std::string message(std::string_view role, std::string_view blocks) {
  return R"([{"role":")" + std::string(role) + R"(","content":[)" + std::string(blocks) + "]}]";
}
std::string of_user(std::string_view blocks) {
  return prompt_of(message("user", blocks));
}
std::string of_assistant(std::string_view blocks) {
  return prompt_of(message("assistant", blocks));
}

/// A tool result with this content.
std::string of_result(std::string_view content, std::string_view members = "") {
  return of_user(R"({"type":"tool_result","tool_use_id":"t","content":)" + std::string(content) +
                 std::string(members) + "}");
}

TEST(ContentTest, KeepsEveryCharacterOfAText) {
  EXPECT_EQ(of_user(R"({"type":"text","text":" \u0000\n\ud83d\ude00\u2028 "})"),
            "u:  \0\n\xF0\x9F\x98\x80\xE2\x80\xA8 \n"s);
}

TEST(ContentTest, RefusesContentThatIsNeitherStringNorList) {
  for (const std::string_view content : {"1", "null", "{}", "true"}) {
    EXPECT_EQ(prompt_of(R"([{"role":"user","content":)" + std::string(content) + "}]"),
              "refused: messages.0.content: Input should be a valid string or list");
  }
}

TEST(ContentTest, RefusesMalformedBlocks) {
  EXPECT_EQ(of_user("1"), "refused: messages.0.content.0: Input should be an object");
  EXPECT_EQ(of_user("{}"), "refused: messages.0.content.0.type: Field required");
  EXPECT_EQ(of_user(R"({"type":1})"),
            "refused: messages.0.content.0.type: Input should be a valid string");
  EXPECT_EQ(of_user(R"({"type":"text"})"), "refused: messages.0.content.0.text: Field required");
  EXPECT_EQ(of_user(R"({"type":"text","text":null})"),
            "refused: messages.0.content.0.text: Input should be a valid string");
}

TEST(ContentTest, RefusesUnknownBlocksByName) {
  EXPECT_EQ(of_user(R"({"type":"text","text":"a"},{"type":"hologram"})"),
            "refused: messages.0.content.1: Input tag 'hologram' found using 'type' does not match "
            "any of the expected tags: 'text', 'tool_result', 'image', 'document', "
            "'search_result'");
}

TEST(ContentTest, RefusesBlocksInTheWrongRole) {
  EXPECT_EQ(of_user(R"({"type":"tool_use","id":"t","name":"n","input":{}})").substr(0, 58),
            "refused: messages.0.content.0: Input tag 'tool_use' found ");
  EXPECT_EQ(of_assistant(R"({"type":"tool_result","tool_use_id":"t"})").substr(0, 50),
            "refused: messages.0.content.0: Input tag 'tool_res");
  EXPECT_EQ(prompt_of(message("system", R"({"type":"image"})")),
            "refused: messages.0.content.0: Input tag 'image' found using 'type' does not match "
            "any of the expected tags: 'text', 'tool_addition', 'tool_removal'");
}

TEST(ContentTest, RefusesPicturesOfAMessage) {
  EXPECT_EQ(of_user(R"({"type":"text","text":"a"},{"type":"image","source":{}})"),
            "refused: messages.0.content.1: this model cannot read images");
}

TEST(ContentTest, ASearchResultIsItsTextBelowTitleAndSource) {
  constexpr std::string_view kFound =
      R"({"type":"search_result","source":"https://x/y","title":"Tea",)"
      R"("citations":{"enabled":true},)"
      R"("content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]})";
  EXPECT_EQ(of_user(kFound), "u: Tea\nhttps://x/y\na\nb\n");
  EXPECT_EQ(of_result("[" + std::string(kFound) + "]"),
            "u: <tool_response>\nTea\nhttps://x/y\na\nb\n</tool_response>\n");
  EXPECT_EQ(of_user(R"({"type":"search_result","title":"Tea"})"),
            "refused: messages.0.content.0.content: Field required");
  EXPECT_EQ(of_user(R"({"type":"search_result","content":[{"type":"image"}]})"),
            "refused: messages.0.content.0.content.0: this model cannot read documents that are "
            "not text");
}

std::string of_document(std::string_view members) {
  return of_user(fmt::format(R"({{"type":"document",{}}})", members));
}

TEST(ContentTest, ReadsDocumentsThatAreText) {
  EXPECT_EQ(of_document(R"("source":{"type":"text","media_type":"text/plain","data":"a\nb"})"),
            "u: a\nb\n");
  EXPECT_EQ(of_document(R"("title":"Tea","context":"From 1908","source":{"type":"content",)"
                        R"("content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]})"),
            "u: Tea\nFrom 1908\na\nb\n");
  EXPECT_EQ(of_document(R"("title":null,"source":{"type":"content","content":"a"})"), "u: a\n");
  EXPECT_EQ(of_result(R"([{"type":"document","source":{"type":"text","data":"a"}}])"),
            "u: <tool_response>\na\n</tool_response>\n");
}

TEST(ContentTest, RefusesOtherDocuments) {
  const std::string at = "refused: messages.0.content.0.";
  const std::string cannot = "this model cannot read documents that are not text";
  EXPECT_EQ(of_document(R"("source":{})"), at + "source.type: Field required");
  EXPECT_EQ(of_document(R"("source":"a")"), at + "source: Input should be an object");
  for (const char* type : {"base64", "url", "file"}) {
    EXPECT_EQ(of_document(fmt::format(R"("source":{{"type":"{}"}})", type)),
              at + "source.type: " + cannot);
  }
  EXPECT_EQ(of_document(R"("source":{"type":"content","content":[{"type":"image"}]})"),
            at + "source.content.0: " + cannot);
  EXPECT_EQ(of_document(R"("source":{"type":"text","data":[]})"),
            at + "source.data: Input should be a string");
}

/// Where images stand in the messages of a seeing model, as "u: a{image/png AAAA field}b".
std::string seen(std::string_view messages) {
  std::string body = R"({"model":"m","max_tokens":10,"messages":)";
  (body += messages) += "}";
  const auto request = parse_messages_request(body, true);
  if (!request) return "refused: " + request.error().message;
  std::string out;
  for (engine::Message message : request->prompt.messages) {
    for (auto image = message.images.rbegin(); image != message.images.rend(); ++image) {
      message.text.insert(image->at,
                          "{" + image->media_type + " " + image->base64 + " " + image->field + "}");
    }
    out += message.role == engine::Role::kTool ? "t: " : "u: ";
    out += message.text + "\n";
  }
  return out;
}

constexpr std::string_view kPng =
    R"({"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}})";

std::string user_sees(const std::string& blocks) {
  return seen(R"([{"role":"user","content":[)" + blocks + "]}]");
}

TEST(ContentTest, ImagesStandWhereTheyStoodAmongTheBlocks) {
  const std::string png(kPng);
  EXPECT_EQ(user_sees(R"({"type":"text","text":"a"},)" + png +
                      R"(,{"type":"text","text":"b"},)"
                      R"({"type":"text","text":"c"})"),
            "u: a{image/png AAAA messages.0.content.1.source.data}b\nc\n");
  EXPECT_EQ(user_sees(png), "u: {image/png AAAA messages.0.content.0.source.data}\n");
  EXPECT_EQ(seen(R"([{"role":"user","content":"a"},{"role":"user","content":[)" + png + "]}]"),
            "u: a{image/png AAAA messages.1.content.0.source.data}\n");
}

TEST(ContentTest, ImagesOfAToolResultStandInIt) {
  EXPECT_EQ(user_sees(R"({"type":"tool_result","tool_use_id":"t","is_error":true,"content":[)"
                      R"({"type":"text","text":"a"},)" +
                      std::string(kPng) + R"(,{"type":"text","text":"b"}]})"),
            "t: Error: a{image/png AAAA messages.0.content.0.content.1.source.data}b\n");
}

TEST(ContentTest, ImagesThatCannotBeTakenAreRefusedByName) {
  const auto source = [](const std::string& members) {
    return user_sees(R"({"type":"image","source":{)" + members + "}}");
  };
  EXPECT_EQ(user_sees(R"({"type":"image"})"),
            "refused: messages.0.content.0.source: Field required");
  EXPECT_EQ(source(R"("type":"url","url":"http://x/y.png")"),
            "refused: messages.0.content.0.source.type: this server fetches nothing: send the "
            "image as 'base64', not as 'url'");
  EXPECT_EQ(source(R"("type":"file","file_id":"f")").substr(0, 44),
            "refused: messages.0.content.0.source.type: t");
  EXPECT_EQ(source(R"("type":"base64","media_type":"image/bmp","data":"AAAA")"),
            "refused: messages.0.content.0.source.media_type: Input should be 'image/jpeg', "
            "'image/png', 'image/gif' or 'image/webp'");
  for (const char* data : {R"("")", R"("AAA")", R"("data:image/png;base64,AAAA")", R"("A\nAA")"}) {
    EXPECT_EQ(source(R"("type":"base64","media_type":"image/png","data":)" + std::string(data)),
              "refused: messages.0.content.0.source.data: Input should be valid base64");
  }
  EXPECT_EQ(seen(R"([{"role":"assistant","content":[)" + std::string(kPng) + "]}]"),
            "refused: messages.0.content.0: only a user's images can be read");
  std::string album(kPng);
  for (std::size_t i = 1; i < engine::kImagesMax; ++i) (album += ',') += kPng;
  EXPECT_EQ(user_sees(album).substr(0, 3), "u: ");
  EXPECT_EQ(user_sees(album + "," + std::string(kPng)),
            "refused: messages: there are 101 images; 100 are the most");
  const std::string much(engine::kImageCharactersMax + 4, 'A');
  EXPECT_EQ(source(R"("type":"base64","media_type":"image/png","data":")" + much + "\""),
            "refused: messages: the images have 16777220 bytes of base64 together; 16777216 are "
            "the most");
}

TEST(ContentTest, LeavesThinkingOutWithAnySignature) {
  EXPECT_EQ(of_assistant(R"({"type":"thinking","thinking":"hm","signature":""},)"
                         R"({"type":"redacted_thinking","data":"x"},{"type":"text","text":"a"})"),
            "a: a\n...");
}

TEST(ContentTest, OfAServersSearchOnlyThePagesStay) {
  const std::string use =
      R"({"type":"server_tool_use","id":"s","name":"web_search","input":{"query":"q"}},)";
  EXPECT_EQ(of_assistant(use + R"({"type":"web_search_tool_result","tool_use_id":"s","content":)"
                               R"({"type":"web_search_tool_result_error","error_code":)"
                               R"("unavailable"}},{"type":"text","text":"a"})"),
            "a: a\n...");
  EXPECT_EQ(of_assistant(use + R"({"type":"web_search_tool_result","tool_use_id":"s","content":[)"
                               R"({"type":"web_search_result","title":"T","url":"u",)"
                               R"("encrypted_content":"x"}]},{"type":"text","text":"a"})"),
            "a: Found: T (u)\na\n...");
  EXPECT_EQ(of_assistant(R"({"type":"web_search_tool_result","content":[{"title":"T"}]})"),
            "refused: messages.0.content.0.content.0.url: Field required");
  EXPECT_EQ(of_assistant(R"({"type":"web_search_tool_result","content":["T"]})"),
            "refused: messages.0.content.0.content: Input should be a list of objects");
}

TEST(ContentTest, WritesAToolUseWithTheNumbersOfTheClient) {
  EXPECT_EQ(
      of_assistant(R"({"type":"tool_use","id":"t","name":"a\"b","caller":{"type":"direct"},)"
                   R"( "input" : {"z": 1.0, "a":[1e20 , 0.50, 1e99999999999],"s":"\u00e9 \n"} })"),
      "a: <tool_call>\n"
      R"({"name":"a\"b","arguments":{"z":1.0,"a":[1e20,0.50,1e99999999999],"s":")"
      "\xC3\xA9 \\n\"}}\n</tool_call>\n");
}

TEST(ContentTest, TakesTheInputOfItsOwnBlock) {
  EXPECT_EQ(of_assistant(R"({"type":"text","text":"],[{\"input\":{\"no\":1}}"},)"
                         R"({"input":{"input":{"x":1}},"type":"tool_use","id":"a","name":"n"},)"
                         R"({"type":"tool_use","input":{"no":1},"id":"b","name":"n","input":{}})"),
            "a: ],[{\"input\":{\"no\":1}}\n"
            "<tool_call>\n{\"name\":\"n\",\"arguments\":{\"input\":{\"x\":1}}}\n</tool_call>\n"
            "<tool_call>\n{\"name\":\"n\",\"arguments\":{}}\n</tool_call>\n");
}

TEST(ContentTest, RefusesMalformedToolUses) {
  EXPECT_EQ(of_assistant(R"({"type":"tool_use","name":"n","input":{}})"),
            "refused: messages.0.content.0.id: Field required");
  EXPECT_EQ(of_assistant(R"({"type":"tool_use","id":"t","name":"","input":{}})"),
            "refused: messages.0.content.0.name: String should have at least 1 character");
  EXPECT_EQ(of_assistant(R"({"type":"tool_use","id":"t","name":"n"})"),
            "refused: messages.0.content.0.input: Field required");
  EXPECT_EQ(of_assistant(R"({"type":"tool_use","id":"t","name":"n","input":"{}"})"),
            "refused: messages.0.content.0.input: Input should be an object");
}

TEST(ContentTest, ThoughtsThatWereNotShownComeBackInTheirSignature) {
  const auto thinking = [](const std::string& signature) {
    const std::string body =
        R"({"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"},)"
        R"({"role":"assistant","content":[{"type":"thinking","thinking":"","signature":")" +
        signature + R"("},{"type":"text","text":"a"}]},{"role":"user","content":"b"}]})";
    const auto request = parse_messages_request(body);
    return request ? request->prompt.messages.at(1).thinking : request.error().message;
  };
  EXPECT_EQ(thinking(thinking_signature("a secret")), "a secret");
  EXPECT_EQ(thinking("EqQBCkYIBBgC"), "");
  EXPECT_EQ(thinking(""), "");
}

TEST(ContentTest, WritesAToolResultHoweverItsContentIsSpelled) {
  const std::string expected = "u: <tool_response>\nok\n</tool_response>\n";
  EXPECT_EQ(of_result(R"("ok")"), expected);
  EXPECT_EQ(of_result(R"([{"type":"text","text":"ok","cache_control":{}}])"), expected);
  EXPECT_EQ(of_result(R"("ok")", R"(,"is_error":false)"), expected);
  EXPECT_EQ(of_result(R"("ok")", R"(,"is_error":null)"), expected);
}

TEST(ContentTest, MarksAFailedToolResult) {
  EXPECT_EQ(of_result(R"("exit 1")", R"(,"is_error":true)"),
            "u: <tool_response>\nError: exit 1\n</tool_response>\n");
}

TEST(ContentTest, KeepsAToolResultWithoutContent) {
  const std::string expected = "u: <tool_response>\n\n</tool_response>\n";
  EXPECT_EQ(of_result("null"), expected);
  EXPECT_EQ(of_result("[]"), expected);
  EXPECT_EQ(of_result(R"("")"), expected);
  EXPECT_EQ(of_user(R"({"type":"tool_result","tool_use_id":"t"})"), expected);
}

TEST(ContentTest, TellsTheModelWhatAToolResultLeftOut) {
  EXPECT_EQ(of_result(R"([{"type":"text","text":"a"},{"type":"image"},{"type":"document"},)"
                      R"({"type":"tool_reference","tool_name":"WebFetch"}])"),
            "u: <tool_response>\na\n[image omitted: this model cannot read images]\n"
            "[document omitted: this model cannot read documents that are not "
            "text]\nWebFetch\n</tool_response>\n");
}

TEST(ContentTest, RefusesMalformedToolResults) {
  EXPECT_EQ(of_user(R"({"type":"tool_result","content":"x"})"),
            "refused: messages.0.content.0.tool_use_id: Field required");
  EXPECT_EQ(of_result(R"("x")", R"(,"is_error":"yes")"),
            "refused: messages.0.content.0.is_error: Input should be a valid boolean");
  EXPECT_EQ(of_result("1"),
            "refused: messages.0.content.0.content: Input should be a valid string or list");
  EXPECT_EQ(of_result(R"([{"type":"text","text":"a"},{"type":"hologram"}])"),
            "refused: messages.0.content.0.content.1: Input tag 'hologram' found using 'type' does "
            "not match any of the expected tags: 'text', 'image', 'document', 'search_result', "
            "'tool_reference'");
  EXPECT_EQ(of_result(R"([{"type":"tool_reference"}])"),
            "refused: messages.0.content.0.content.0.tool_name: Field required");
}

TEST(ContentTest, ReadsTheSystemFieldByTheSameRules) {
  constexpr std::string_view kHi = R"([{"role":"user","content":"hi"}])";
  EXPECT_EQ(prompt_of(kHi, R"("system":1)"),
            "refused: system: Input should be a valid string or list");
  EXPECT_EQ(prompt_of(kHi, R"("system":[{"type":"text"}])"),
            "refused: system.0.text: Field required");
  EXPECT_EQ(prompt_of(kHi, R"("system":[])"), "u: hi\n");
}

}  // namespace
}  // namespace pensieve::api
