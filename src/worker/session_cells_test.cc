// Limits and KV cells, over a real socket.
#include <gtest/gtest.h>

#include "worker/testing/session_fixture.h"

namespace pensieve::worker {
namespace {

using std::chrono::seconds;

constexpr const char* kLong =
    "script: say one two three four five six seven eight nine ten eleven twelve thirteen fourteen";

class SessionCellsTest : public SessionTest {
 protected:
  NeedCells next_need() {
    return decode_need_cells(next(FrameType::kNeedCells, 0).payload).value();
  }
  Resized resize(std::uint32_t cells) {
    send(FrameType::kResize, 0, encode(Resize{cells}));
    return decode_resized(next(FrameType::kResized, 0).payload).value();
  }
};

TEST_F(SessionCellsTest, ALoadWithFewCellsAsksForMoreAndGoesOnWithThem) {
  load("context_tokens 1000\n", 16, 1000);
  generate(2, kLong);
  const NeedCells need = next_need();
  EXPECT_EQ(need.cells_now, 16U);
  EXPECT_GT(need.cells_wanted, 19U);
  EXPECT_EQ(resize(64).cells, 64U);
  const Answer whole = answer(2);
  EXPECT_EQ(whole.done.output_tokens, 14U);
  wait_for_heartbeat([](const Heartbeat& heartbeat) {
    return heartbeat.cells == 64 && heartbeat.cells_used > 30 && heartbeat.running == 0;
  });
}

TEST_F(SessionCellsTest, WhoWaitsForCellsSendsHeartbeatsAsksAgainAndIsRefusedInTheEnd) {
  load("context_tokens 1000\n", 16, 1000);
  generate(2, kLong);
  next_need();
  send(FrameType::kResizeRefused, 0,
       encode(ResizeRefused{memory::Level::kWarning, 1500_MiB, "no room"}));
  int asked = 1;
  int beats = 0;
  while (true) {
    clock_.advance(std::chrono::milliseconds(250));
    const Result<Frame> frame = read_frame(pair_.end(0));
    ASSERT_TRUE(frame) << frame.error().message;
    if (frame->type == FrameType::kHeartbeat) {
      ++beats;
      continue;
    }
    if (frame->type == FrameType::kNeedCells) {
      ++asked;
      send(FrameType::kResizeRefused, 0,
           encode(ResizeRefused{memory::Level::kWarning, 1500_MiB, "no room"}));
      continue;
    }
    ASSERT_EQ(static_cast<int>(frame->type), static_cast<int>(FrameType::kRefused));
    EXPECT_EQ(frame->request, 2U);
    const Refused refused = decode_refused(frame->payload).value();
    EXPECT_EQ(refused.level, memory::Level::kWarning);
    EXPECT_EQ(refused.available, 1500_MiB);
    EXPECT_NE(refused.reason.find("no room"), std::string::npos) << refused.reason;
    break;
  }
  EXPECT_GT(asked, 1);
  EXPECT_GT(beats, 0) << "waiting for a grant is not hanging";
}

TEST_F(SessionCellsTest, AnOrderToShrinkIsObeyedWhereNothingRuns) {
  load("context_tokens 1000\n");
  EXPECT_EQ(resize(100).cells, 100U);
  EXPECT_EQ(resize(2000).cells, 2000U);
}

TEST_F(SessionCellsTest, WithoutAModelThereAreNoCells) {
  next(FrameType::kHello, 0);
  EXPECT_EQ(resize(100).cells, 0U);
  send(FrameType::kResizeRefused, 0, encode(ResizeRefused{}));
  EXPECT_EQ(stop(), 0);
}

TEST_F(SessionCellsTest, AWindowThatCanNeverHaveItsCellsIsNotLoaded) {
  next(FrameType::kHello, 0);
  send(FrameType::kLoad, 1, load_payload("context_tokens 1000\n", 16, 999));
  Frame frame = next();
  while (frame.type == FrameType::kLoadProgress) frame = next();
  ASSERT_EQ(static_cast<int>(frame.type), static_cast<int>(FrameType::kFailed));
  EXPECT_EQ(decode_failed(frame.payload)->code, Code::kInvalidArgument);
  EXPECT_EQ(decode_failed(frame.payload)->message,
            "a window of 1000 tokens needs as many KV cells; 999 are the most that are allowed");
}

TEST_F(SessionCellsTest, LimitsAreObeyedAlsoWhereTheyCameBeforeTheModel) {
  const auto limits = [](std::uint32_t sequences) {
    return encode(Limits{.sequences_max = sequences,
                         .step_tokens_max = 64,
                         .caches_grow = true,
                         .parked_bytes_max = {},
                         .stored_bytes_max = {}});
  };
  send(FrameType::kLimits, 0, limits(1));
  load();
  gate_.close();
  generate(2, "script: slow 20; say one");
  next(FrameType::kAccepted, 2);
  ASSERT_TRUE(gate_.holds_somebody());
  next(FrameType::kStarted, 2);
  generate(3, "script: say two");
  count(4, "the frame before this is read");
  gate_.open();
  // With a place for both, the second would start beside the first. It is accepted when its turn
  // comes, which may be between any two frames of the first.
  std::string answer;
  bool accepted = false;
  for (Frame frame = next(); frame.type != FrameType::kDone; frame = next()) {
    accepted = accepted || frame.type == FrameType::kAccepted;
    if (frame.type == FrameType::kAccepted) continue;
    ASSERT_EQ(static_cast<int>(frame.type), static_cast<int>(FrameType::kText)) << frame.payload;
    ASSERT_EQ(frame.request, 2U);
    answer += frame.payload;
  }
  EXPECT_EQ(answer, "one");
  if (!accepted) next(FrameType::kAccepted, 3);
  next(FrameType::kStarted, 3);
  EXPECT_EQ(next(FrameType::kText, 3).payload, "two");
  next(FrameType::kDone, 3);
}

TEST(SessionCellsDeathTest, AnOrderThatMakesNoSenseEndsTheWorker) {
  for (const FrameType type : {FrameType::kLimits, FrameType::kResize, FrameType::kResizeRefused}) {
    EXPECT_EXIT(serve_only(encode_frame(type, 0, "{}")),
                testing::ExitedWithCode(kExitEngineFailure), "bad .* frame");
  }
}

}  // namespace
}  // namespace pensieve::worker
