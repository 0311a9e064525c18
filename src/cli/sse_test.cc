// Events come out whole, however the stream is cut.
#include "cli/sse.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::cli {
namespace {

struct Collected {
  std::vector<std::string> events;
  SseParser parser{
      [this](const SseEvent& event) { events.push_back(event.name + "|" + event.data); }};
};

TEST(SseTest, EventsDoNotDependOnHowTheStreamIsCut) {
  const std::string stream =
      "event: a\ndata: {\"t\":\"h\xc3\xa9\"}\n\n: comment\n\ndata: x\ndata:y\r\n\r\n"
      "event: c\rdata: z\r\rid: 3\n\n";
  const std::vector<std::string> expected{"a|{\"t\":\"h\xc3\xa9\"}", "|x\ny", "c|z"};
  for (std::size_t step = 1; step <= stream.size(); ++step) {
    Collected collected;
    for (std::size_t at = 0; at < stream.size(); at += step) {
      ASSERT_TRUE(collected.parser.feed(std::string_view(stream).substr(at, step)));
    }
    EXPECT_EQ(collected.events, expected) << "pieces of " << step;
  }
}

TEST(SseTest, AnEventThatTheEndCutsOffDoesNotCount) {
  Collected collected;
  EXPECT_TRUE(collected.parser.feed("event: a\ndata: x\n"));
  EXPECT_TRUE(collected.events.empty());
}

TEST(SseTest, AnEndlessEventIsRefused) {
  Collected collected;
  EXPECT_TRUE(collected.parser.feed(std::string(SseParser::kEventBytesMax, 'x')));
  EXPECT_FALSE(collected.parser.feed("x"));
}

}  // namespace
}  // namespace pensieve::cli
