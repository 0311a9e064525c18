#include "gateway/answer_blocks.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::gateway {
namespace {

/// The names of events in order, deltas by their type: what a client's state machine sees.
std::string outline(const std::string& events) {
  std::string out;
  std::size_t at = 0;
  while ((at = events.find("data: {\"type\":\"", at)) != std::string::npos) {
    at += 15;
    std::string name = events.substr(at, events.find('"', at) - at);
    const std::size_t end = events.find('\n', at);
    const std::string line = events.substr(at, end - at);
    const std::size_t index = line.find("\"index\":");
    std::string what = name.substr(std::string("content_block_").size());
    const std::size_t inner = line.find("{\"type\":\"");
    if (inner != std::string::npos) {
      const std::string rest = line.substr(inner + 9);
      what += "(" + rest.substr(0, rest.find('"')) + ")";
    }
    out += line.substr(index + 8, 1) + ":" + what + " ";
  }
  return out;
}

TEST(AnswerBlocksTest, TextIsOneBlock) {
  api::MessagesFormat format;
  AnswerBlocks blocks(format, true, api::ThinkingDisplay::kShown);
  std::string events = blocks.text("a");
  events += blocks.text("b");
  events += blocks.finish();
  EXPECT_EQ(outline(events), "0:start(text) 0:delta(text_delta) 0:delta(text_delta) 0:stop ");
  EXPECT_EQ(blocks.bytes(), 2U);
}

TEST(AnswerBlocksTest, AFailedSearchIsTwoBlocksAndNoContent) {
  api::MessagesFormat format;
  AnswerBlocks blocks(format, true, api::ThinkingDisplay::kShown);
  std::string events = blocks.failed_search("a \"b\"");
  EXPECT_EQ(blocks.bytes(), 0U);
  blocks.forget();
  events += blocks.text("c");
  events += blocks.finish();
  EXPECT_EQ(outline(events),
            "0:start(server_tool_use) 0:delta(input_json_delta) 0:stop "
            "1:start(web_search_tool_result) 1:stop "
            "2:start(text) 2:delta(text_delta) 2:stop ");
  EXPECT_NE(events.find(R"("partial_json":"{\"query\":\"a \\\"b\\\"\"}")"), std::string::npos)
      << events;

  AnswerBlocks whole(format, false, api::ThinkingDisplay::kShown);
  EXPECT_EQ(whole.failed_search("q"), "");
  ASSERT_EQ(whole.blocks().size(), 2U);
  EXPECT_EQ(whole.blocks()[0].input, R"({"query":"q"})");
  EXPECT_EQ(whole.blocks()[1].id, whole.blocks()[0].id);
  whole.forget();
  EXPECT_TRUE(whole.blocks().empty());
}

TEST(AnswerBlocksTest, ThinkingTextAndCallsAreBlocksInOrder) {
  api::MessagesFormat format;
  AnswerBlocks blocks(format, true, api::ThinkingDisplay::kShown);
  std::string events = blocks.thinking("t");
  events += blocks.text("a");
  events += blocks.call_start("f");
  events += blocks.call_input("{}");
  events += blocks.call_end();
  events += blocks.call_start("g");
  events += blocks.call_input("{}");
  events += blocks.call_end();
  events += blocks.finish();
  EXPECT_EQ(outline(events),
            "0:start(thinking) 0:delta(thinking_delta) 0:delta(signature_delta) 0:stop "
            "1:start(text) 1:delta(text_delta) 1:stop "
            "2:start(tool_use) 2:delta(input_json_delta) 2:stop "
            "3:start(tool_use) 3:delta(input_json_delta) 3:stop ");
  EXPECT_EQ(blocks.calls(), 2U);
}

TEST(AnswerBlocksTest, ACallThatWasCutOffIsNeverClosed) {
  api::MessagesFormat format;
  AnswerBlocks blocks(format, true, api::ThinkingDisplay::kShown);
  std::string events = blocks.call_start("f");
  events += blocks.call_input("{\"a\":");
  events += blocks.finish();
  EXPECT_EQ(outline(events), "0:start(tool_use) 0:delta(input_json_delta) ");
  EXPECT_EQ(blocks.calls(), 0U);
}

TEST(AnswerBlocksTest, AWholeAnswerHasTheSameBlocksAndNoEvents) {
  api::MessagesFormat format;
  AnswerBlocks blocks(format, false, api::ThinkingDisplay::kShown);
  std::string events = blocks.text("a");
  events += blocks.text("b");
  events += blocks.call_start("f");
  events += blocks.call_input("{\"x\"");
  events += blocks.call_input(":1}");
  events += blocks.call_end();
  events += blocks.call_start("g");
  events += blocks.call_input("{");
  events += blocks.finish();
  EXPECT_EQ(events, "");
  ASSERT_EQ(blocks.blocks().size(), 2U);
  EXPECT_EQ(blocks.blocks()[0].text, "ab");
  EXPECT_EQ(blocks.blocks()[1].name, "f");
  EXPECT_EQ(blocks.blocks()[1].input, "{\"x\":1}");
  EXPECT_TRUE(blocks.blocks()[1].id.starts_with("toolu_"));
}

TEST(AnswerBlocksTest, KeepingAwakeOpensATextBlockOrExtendsTheOpenOne) {
  api::MessagesFormat format;
  AnswerBlocks blocks(format, true, api::ThinkingDisplay::kShown);
  EXPECT_EQ(outline(blocks.keep_awake(false)), "0:start(text) 0:delta(text_delta) ");
  EXPECT_EQ(outline(blocks.keep_awake(false)), "0:delta(text_delta) ");
  EXPECT_EQ(outline(blocks.call_start("f")), "0:stop 1:start(tool_use) ");
  EXPECT_EQ(outline(blocks.keep_awake(true)), "1:delta(input_json_delta) ");
  EXPECT_EQ(blocks.bytes(), 1U);
  AnswerBlocks unasked(format, true, api::ThinkingDisplay::kNone);
  EXPECT_EQ(outline(unasked.keep_awake(true)), "0:start(text) 0:delta(text_delta) ");
}

TEST(AnswerBlocksTest, ThoughtsGoOnInTheBlockThatKeptTheClientAwake) {
  for (const auto display : {api::ThinkingDisplay::kShown, api::ThinkingDisplay::kOmitted}) {
    api::MessagesFormat format;
    AnswerBlocks blocks(format, true, display);
    EXPECT_EQ(outline(blocks.keep_awake(true)), "0:start(thinking) 0:delta(thinking_delta) ");
    EXPECT_EQ(blocks.bytes(), 0U);
    EXPECT_EQ(outline(blocks.thinking("hm")), "0:delta(thinking_delta) ");
    EXPECT_EQ(outline(blocks.text("Yes")),
              "0:delta(signature_delta) 0:stop 1:start(text) 1:delta(text_delta) ");
  }
}

TEST(AnswerBlocksTest, ABlockForThoughtsThatDoNotComeIsClosedAsOthersAre) {
  api::MessagesFormat format;
  AnswerBlocks blocks(format, true, api::ThinkingDisplay::kShown);
  blocks.keep_awake(true);
  EXPECT_EQ(outline(blocks.text("Yes")),
            "0:delta(signature_delta) 0:stop 1:start(text) 1:delta(text_delta) ");
  AnswerBlocks empty(format, true, api::ThinkingDisplay::kShown);
  empty.keep_awake(true);
  EXPECT_EQ(outline(empty.finish()), "0:delta(signature_delta) 0:stop ");
}

TEST(AnswerBlocksTest, AWholeAnswerThatIsForgottenStartsAnew) {
  api::MessagesFormat format;
  AnswerBlocks blocks(format, false, api::ThinkingDisplay::kShown);
  blocks.text("lost");
  blocks.forget();
  blocks.text("kept");
  blocks.finish();
  ASSERT_EQ(blocks.blocks().size(), 1U);
  EXPECT_EQ(blocks.blocks()[0].text, "kept");
}

TEST(AnswerBlocksTest, OmittedThoughtsAreInTheSignatureAlone) {
  api::MessagesFormat format;
  AnswerBlocks streamed(format, true, api::ThinkingDisplay::kOmitted);
  std::string events = streamed.thinking("a ");
  events += streamed.thinking("secret");
  events += streamed.text("Yes");
  events += streamed.finish();
  EXPECT_EQ(events.find("secret"), std::string::npos);
  EXPECT_NE(events.find(api::thinking_signature("a secret")), std::string::npos);
  EXPECT_EQ(outline(events),
            "0:start(thinking) 0:delta(thinking_delta) 0:delta(thinking_delta) "
            "0:delta(signature_delta) 0:stop 1:start(text) 1:delta(text_delta) 1:stop ");

  AnswerBlocks whole(format, false, api::ThinkingDisplay::kOmitted);
  whole.thinking("a secret");
  whole.text("Yes");
  whole.finish();
  ASSERT_EQ(whole.blocks().size(), 2U);
  EXPECT_EQ(whole.blocks()[0].text, "");
  EXPECT_EQ(whole.blocks()[0].signature, api::thinking_signature("a secret"));
}

TEST(AnswerBlocksTest, ThoughtsThatNobodyAskedForAreDropped) {
  api::MessagesFormat format;
  AnswerBlocks blocks(format, true, api::ThinkingDisplay::kNone);
  EXPECT_EQ(blocks.thinking("hm"), "");
  EXPECT_EQ(blocks.bytes(), 0U);
  EXPECT_EQ(outline(blocks.text("Yes")), "0:start(text) 0:delta(text_delta) ");
}

}  // namespace
}  // namespace pensieve::gateway
