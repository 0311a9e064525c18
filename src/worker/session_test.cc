// What a session says and does, frame by frame.
#include "worker/session.h"

#include <optional>

#include <gtest/gtest.h>

#include "worker/embed_messages.h"
#include "worker/preparer.h"
#include "worker/testing/session_fixture.h"

namespace pensieve::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_F(SessionTest, SaysHelloFirstWithEngineAndVersion) {
  const Hello hello = decode_hello(next(FrameType::kHello, 0).payload).value();
  EXPECT_EQ(hello.engine, "scripted");
  EXPECT_EQ(hello.version, "1.2.3");
}

TEST_F(SessionTest, StopsWhenAskedAndReturnsZero) {
  EXPECT_EQ(stop(), 0);
}

TEST_F(SessionTest, StopsWhenAskedWithAModelLoaded) {
  load();
  generate(2, "script: say one");
  answer(2);
  EXPECT_EQ(stop(), 0);
}

TEST_F(SessionTest, PlansWithoutLoading) {
  next(FrameType::kHello, 0);
  send(FrameType::kPlan, 1, load_payload("plan_mib 77\ncontext_tokens 99\n"));
  const engine::Plan plan = decode_plan(next(FrameType::kPlanned, 1).payload).value();
  EXPECT_EQ(plan.estimate.total(), 77_MiB);
  EXPECT_EQ(plan.context_tokens, 99U);
  generate(2, "script: say one");
  EXPECT_EQ(next_failure(2).message, "no model is loaded");
}

TEST_F(SessionTest, LoadsWithProgressUpToTheEnd) {
  next(FrameType::kHello, 0);
  send(FrameType::kLoad, 1, load_payload("context_tokens 123\n"));
  EXPECT_EQ(next(FrameType::kLoadProgress, 1).payload, "1.000");
  const engine::ModelInfo info = decode_model_info(next(FrameType::kLoaded, 1).payload).value();
  EXPECT_EQ(info.context_tokens, 123U);
}

TEST_F(SessionTest, ALoadThatFailsMayBeTriedAgainAndASecondOneIsRefused) {
  next(FrameType::kHello, 0);
  send(FrameType::kLoad, 1, encode(engine::LoadOptions{.model_path = folder_.at("none.script")}));
  EXPECT_EQ(next_failure(1).code, Code::kNotFound);
  send(FrameType::kLoad, 2, load_payload());
  next(FrameType::kLoadProgress, 2);
  next(FrameType::kLoaded, 2);
  send(FrameType::kLoad, 3, load_payload());
  EXPECT_EQ(next_failure(3).message, "already loaded");
}

TEST_F(SessionTest, AnswersARequestWithAllItsFramesInOrder) {
  load();
  generate(5, "script: say one two three");
  const Answer told = answer(5);
  EXPECT_EQ(told.accepted.input_tokens, 8U);
  EXPECT_EQ(told.started.cached_tokens, 0U);
  EXPECT_EQ(told.text, "one two three");
  EXPECT_EQ(told.done.cause, StopCause::kEndOfTurn);
  EXPECT_EQ(told.done.output_tokens, 3U);
}

TEST_F(SessionTest, TheNextTurnFindsItsCache) {
  load();
  generate(5, "script: say one two three");
  answer(5);
  generate(6, "script: say one two three");
  EXPECT_EQ(answer(6).started.cached_tokens, 7U);
}

TEST_F(SessionTest, BytesThatAreNoTextNeverLeaveTheWorker) {
  load();
  generate(5, "script: bytes F09F; bytes 9880; bytes FF; bytes C3");
  EXPECT_EQ(answer(5).text, "\xF0\x9F\x98\x80\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_F(SessionTest, CountsTokensAlsoWhileTheEngineIsBusy) {
  load();
  EXPECT_EQ(count(2, "script: say one two three"), 8U);
  gate_.close();
  generate(3, "script: slow 20; say done");
  next(FrameType::kAccepted, 3);
  ASSERT_TRUE(gate_.holds_somebody());
  next(FrameType::kStarted, 3);
  EXPECT_EQ(count(4, "one two"), 5U);
  gate_.open();
  EXPECT_EQ(next(FrameType::kText, 3).payload, "done");
  next(FrameType::kDone, 3);
}

TEST_F(SessionTest, APromptThatIsPreparedForLongHoldsUpNobody) {
  load("prepare_ms 20\n");
  gate_.close();
  generate(3, "script: say one");
  ASSERT_TRUE(gate_.holds_somebody());
  generate(4, "script: say two");
  EXPECT_EQ(count(5, "one two"), 5U);
  expect_heartbeats_again();
  EXPECT_EQ(last_heartbeat_->waiting, 2U);
  send(FrameType::kCancel, 4);  // Or its frames would come between those of the other.
  count(6, "the cancel is read");
  gate_.open();
  EXPECT_EQ(answer(3).text, "one");
}

TEST_F(SessionTest, APromptThatIsCancelledWhileItIsPreparedSaysNothingMore) {
  load("prepare_ms 20\n");
  gate_.close();
  generate(3, "script: say one");
  ASSERT_TRUE(gate_.holds_somebody());
  generate(4, "script: say two");
  generate(5, "script: say three");
  send(FrameType::kCancel, 4);
  send(FrameType::kCancel, 3);
  EXPECT_EQ(count(6, "one two"), 5U);
  gate_.open();
  EXPECT_EQ(answer(5).text, "three");
}

TEST_F(SessionTest, HeartbeatsStopWhileAPromptIsPreparedForEver) {
  load("prepare_ms 20\n");
  gate_.close();
  generate(3, "script: say one");
  ASSERT_TRUE(gate_.holds_somebody());
  clock_.advance(Preparer::kPrepareMax + seconds(1));
  EXPECT_EQ(heartbeats_after(seconds(10)), 0);
  gate_.open();
  EXPECT_EQ(answer(3).text, "one");
  expect_heartbeats_again();
}

TEST_F(SessionTest, ATooLongPromptIsRefusedInTheWordsThatClientsKnow) {
  load("context_tokens 10\n");
  const std::string nine = "one two three four five six";
  ASSERT_EQ(count(2, nine), 9U);
  generate(3, nine);
  EXPECT_EQ(answer(3).done.cause, StopCause::kWindowFull);
  generate(4, nine + " seven");
  const Failed failed = next_failure(4);
  EXPECT_EQ(failed.code, Code::kInvalidArgument);
  EXPECT_EQ(failed.message, "prompt is too long: 10 tokens > 9 maximum");
}

TEST_F(SessionTest, ACancelledRequestSaysNothingMoreAndTheNextIsServed) {
  load();
  generate(3, "script: endless word");
  next(FrameType::kAccepted, 3);
  next(FrameType::kStarted, 3);
  next(FrameType::kText, 3);
  send(FrameType::kCancel, 3);
  wait_for_heartbeat([](const Heartbeat& heartbeat) { return heartbeat.running == 0; });
  generate(4, "script: say fine");
  EXPECT_EQ(answer(4).text, "fine");
}

TEST_F(SessionTest, ClearsTheCacheAndSaysHowMuchWasDropped) {
  next(FrameType::kHello, 0);
  send(FrameType::kClearCache, 1);
  EXPECT_EQ(decode_cleared(next(FrameType::kCleared, 1).payload)->dropped_tokens, 0U)
      << "without a model there is nothing to drop";
  send(FrameType::kLoad, 2, load_payload());
  next(FrameType::kLoadProgress, 2);
  next(FrameType::kLoaded, 2);
  generate(3, "script: say one two three");
  answer(3);
  send(FrameType::kClearCache, 4);
  const Cleared cleared = decode_cleared(next(FrameType::kCleared, 4).payload).value();
  EXPECT_EQ(cleared.dropped_tokens, 8U + 3U);
  generate(5, "script: say one two three");
  EXPECT_EQ(answer(5).started.cached_tokens, 0U);
}

TEST_F(SessionTest, WhatAnAnswerGrewIsGivenBackAfterIt) {
  load();
  generate(3, "script: grow 3; say one");
  answer(3);
  send(FrameType::kClearCache, 4);
  EXPECT_EQ(decode_cleared(next(FrameType::kCleared, 4).payload)->freed, Bytes());
}

TEST_F(SessionTest, RefusesAtCriticalWithTheReadingAndServesAgainWhenItIsOver) {
  load();
  memory_.set_available(1_GiB);
  generate(3, "script: say one");
  EXPECT_EQ(answer(3).text, "one") << "exactly at the floor is its good side";
  memory_.set_available(saturating_sub(1_GiB, Bytes(1)));
  generate(4, "script: say one");
  const Refused refused = decode_refused(next(FrameType::kRefused, 4).payload).value();
  EXPECT_EQ(refused.level, memory::Level::kCritical);
  EXPECT_EQ(refused.available, saturating_sub(1_GiB, Bytes(1)));
  memory_.set_available(8_GiB);
  generate(5, "script: say one");
  EXPECT_EQ(answer(5).started.cached_tokens, 5U) << "Critical drops no cache";
}

TEST_F(SessionTest, AtEmergencyItDropsTheCacheFirstAndThenRefusesWithTheReading) {
  load();
  generate(3, "script: say one");
  answer(3);
  memory_.set_available(100_MiB);
  generate(4, "script: say one");
  const Refused refused = decode_refused(next(FrameType::kRefused, 4).payload).value();
  EXPECT_EQ(refused.level, memory::Level::kEmergency);
  EXPECT_EQ(refused.available, 100_MiB);
  memory_.set_available(8_GiB);
  generate(5, "script: say one");
  EXPECT_EQ(answer(5).started.cached_tokens, 0U);
}

TEST_F(SessionTest, MemoryThatCannotBeReadIsCriticalAndHasNoFigure) {
  load();
  memory_.fail("meminfo vanished");
  generate(3, "script: say one");
  const Refused refused = decode_refused(next(FrameType::kRefused, 3).payload).value();
  EXPECT_EQ(refused.level, memory::Level::kCritical);
  EXPECT_EQ(refused.available, std::nullopt);
}

TEST_F(SessionTest, APayloadThatIsNoneFailsItsRequestAndNotTheWorker) {
  load();
  for (const FrameType type :
       {FrameType::kPlan, FrameType::kLoad, FrameType::kGenerate, FrameType::kCountTokens}) {
    send(type, 3, "{\"not\":\"it\"}");
    EXPECT_EQ(next_failure(3).code, Code::kInvalidArgument);
  }
  generate(4, "script: say fine");
  EXPECT_EQ(answer(4).text, "fine");
}

TEST_F(SessionTest, HeartbeatsGoOnWhileThereIsNothingToDo) {
  load();
  for (int i = 0; i < 3; ++i) expect_heartbeats_again();
  EXPECT_GT(last_heartbeat_->resident, Bytes());
  EXPECT_EQ(last_heartbeat_->running, 0U);
}

TEST_F(SessionTest, HeartbeatsStopWhileTheEngineHangsAndComeBackWithIt) {
  load();
  gate_.close();
  generate(3, "script: slow 20; say done");
  next(FrameType::kAccepted, 3);
  ASSERT_TRUE(gate_.holds_somebody());
  next(FrameType::kStarted, 3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(heartbeats_after(seconds(10)), 0);
  EXPECT_EQ(last_heartbeat_->running, 1U);
  gate_.open();
  EXPECT_EQ(next(FrameType::kText, 3).payload, "done");
  next(FrameType::kDone, 3);
  expect_heartbeats_again();
}

TEST_F(SessionTest, ARequestThatHangsDoesNotHideBehindAnotherThatWaits) {
  load();
  gate_.close();
  generate(3, "script: slow 20; say done");
  next(FrameType::kAccepted, 3);
  ASSERT_TRUE(gate_.holds_somebody());
  next(FrameType::kStarted, 3);
  EXPECT_EQ(heartbeats_after(seconds(10)), 0);
  generate(4, "script: say later");
  EXPECT_EQ(heartbeats_after(seconds(10)), 0) << "a submit is no progress of the engine";
  gate_.open();
  EXPECT_EQ(next(FrameType::kText, 3).payload, "done");
}

TEST(SessionDeathTest, EndsWithTheGatewayAndNotWithoutIt) {
  EXPECT_EXIT(serve_only(""), testing::ExitedWithCode(0), "the gateway is gone");
}

TEST(SessionDeathTest, EndsAtWhatIsNoFrame) {
  EXPECT_EXIT(serve_only("this is no frame, is it"), testing::ExitedWithCode(kExitEngineFailure),
              "not a frame");
  EXPECT_EXIT(serve_only("short"), testing::ExitedWithCode(kExitEngineFailure), "inside a header");
  EXPECT_EXIT(serve_only(encode_frame(FrameType::kHello, 0, "{}")),
              testing::ExitedWithCode(kExitEngineFailure), "only a worker may send");
}

TEST_F(SessionTest, EmbedsOneInputForOneFrame) {
  next(FrameType::kHello, 0);
  send(FrameType::kEmbed, 1, encode(EmbedRequest{"one two", {}}));
  EXPECT_EQ(next_failure(1).message, "no model is loaded");
  send(FrameType::kLoad, 2, load_payload("embedding_size 3\ncontext_tokens 5\n"));
  next(FrameType::kLoadProgress, 2);
  EXPECT_TRUE(
      decode_model_info(next(FrameType::kLoaded, 2).payload).value().capabilities.embeddings);
  send(FrameType::kEmbed, 3, encode(EmbedRequest{"one two", {}}));
  const Embedded embedded = decode_embedded(next(FrameType::kEmbedded, 3).payload).value();
  EXPECT_EQ(embedded.input_tokens, 2U);
  EXPECT_EQ(embedded.embedding.size(), 3U);
  send(FrameType::kEmbed, 4, encode(EmbedRequest{"one two three four five six", {}}));
  EXPECT_EQ(next_failure(4).message, "input is too long: 6 tokens > 5 maximum");
  send(FrameType::kEmbed, 5, "{}");
  EXPECT_EQ(next_failure(5).code, Code::kInvalidArgument);
  memory_.set_available(1_MiB);
  send(FrameType::kEmbed, 6, encode(EmbedRequest{"one", {}}));
  next(FrameType::kRefused, 6);
  generate(7, "script: say one");
  EXPECT_EQ(next_failure(7).code, Code::kInvalidArgument);
}

TEST_F(SessionTest, AModelThatGeneratesTextEmbedsNothing) {
  load();
  send(FrameType::kEmbed, 2, encode(EmbedRequest{"one", {}}));
  EXPECT_EQ(next_failure(2).message, "this model gives no embeddings");
}

}  // namespace
}  // namespace pensieve::worker
