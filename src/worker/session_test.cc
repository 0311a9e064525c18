// A worker's whole life over a real socket: the session runs in a thread of the test, its engine is
// the scripted one, and its clock, memory and time inside the engine are the test's.
#include "worker/session.h"

#include <sys/time.h>

#include <optional>
#include <thread>

#include <gtest/gtest.h>

#include "engine/testing/scripted.h"
#include "worker/frame.h"
#include "worker/messages.h"
#include "worker/testing/gate.h"
#include "worker/testing/shared_fakes.h"
#include "worker/testing/socket_pair.h"
#include "worker/testing/temp_folder.h"
#include "worker/worker_end.h"

namespace pensieve::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class SessionTest : public testing::Test {
 protected:
  SessionTest() {
    memory_.set_available(8_GiB);
    const timeval bound{30, 0};  // A frame that never comes fails the test, and does not hang it.
    ::setsockopt(pair_.end(0), SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound);
    session_ = std::thread([this] {
      exit_code_ = serve_session(pair_.end(1), make_engine(), memory_, clock_, options());
    });
  }
  // The session ends the whole process when its socket does, so it is stopped first.
  ~SessionTest() override { stop(); }

  static SessionOptions options() {
    return {.engine_name = "scripted",
            .version = "1.2.3",
            .floors = {},
            .heartbeat_every = milliseconds(5)};
  }
  engine::EngineFactory make_engine() {
    return [this](const engine::ProgressTick& tick) {
      return engine::make_scripted_engine(tick, [this](Duration d) { gate_.pass(d); });
    };
  }

  int stop() {
    if (session_.joinable()) {
      gate_.open();
      send(FrameType::kShutdown, 0);
      session_.join();
    }
    return exit_code_;
  }

  void send(FrameType type, std::uint32_t request, std::string_view payload = {}) {
    ASSERT_TRUE(write_frame(pair_.end(0), type, request, payload));
  }
  /// The next frame; heartbeats are kept in last_heartbeat_ and counted.
  Frame next() {
    while (true) {
      Result<Frame> frame = read_frame(pair_.end(0));
      EXPECT_TRUE(frame) << frame.error().message;
      if (!frame) return {};
      if (frame->type != FrameType::kHeartbeat) return *std::move(frame);
      ++heartbeats_;
      last_heartbeat_ = decode_heartbeat(frame->payload).value();
    }
  }
  Frame next(FrameType type, std::uint32_t request) {
    Frame frame = next();
    EXPECT_EQ(static_cast<int>(frame.type), static_cast<int>(type)) << frame.payload;
    EXPECT_EQ(frame.request, request);
    return frame;
  }
  void wait_for_heartbeat(const std::function<bool(const Heartbeat&)>& wanted) {
    while (!last_heartbeat_ || !wanted(*last_heartbeat_)) {
      const Result<Frame> frame = read_frame(pair_.end(0));
      ASSERT_TRUE(frame) << frame.error().message;
      if (frame->type != FrameType::kHeartbeat) continue;
      last_heartbeat_ = decode_heartbeat(frame->payload).value();
    }
  }
  Failed next_failure(std::uint32_t request) {
    return decode_failed(next(FrameType::kFailed, request).payload).value();
  }

  std::string load_payload(const std::string& model = "") {
    return encode(engine::LoadOptions{
        .model_path = folder_.write("m.script", model), .sequences_max = 2, .step_tokens_max = 64});
  }
  void load(const std::string& model = "") {
    next(FrameType::kHello, 0);
    send(FrameType::kLoad, 1, load_payload(model));
    while (true) {
      const Frame frame = next();
      if (frame.type == FrameType::kLoadProgress) continue;
      ASSERT_EQ(static_cast<int>(frame.type), static_cast<int>(FrameType::kLoaded))
          << frame.payload;
      return;
    }
  }

  static engine::Prompt ask(const std::string& text) {
    return {.messages = {{engine::Role::kUser, text}}, .continues_last = false};
  }
  void generate(std::uint32_t request, const std::string& text, std::uint32_t output_max = 1000) {
    send(FrameType::kGenerate, request,
         encode(GenerateRequest{.prompt = ask(text),
                                .output_tokens_max = output_max,
                                .stop_sequences = {},
                                .sampling = {}}));
  }
  /// All of one request's frames but heartbeats, from Accepted to Done.
  struct Answer {
    Accepted accepted;
    Started started;
    std::string text;
    Done done;
  };
  Answer answer(std::uint32_t request) {
    Answer answer;
    answer.accepted = decode_accepted(next(FrameType::kAccepted, request).payload).value();
    answer.started = decode_started(next(FrameType::kStarted, request).payload).value();
    while (true) {
      const Frame frame = next();
      EXPECT_EQ(frame.request, request);
      if (frame.type == FrameType::kText) {
        answer.text += frame.payload;
        continue;
      }
      EXPECT_EQ(static_cast<int>(frame.type), static_cast<int>(FrameType::kDone)) << frame.payload;
      if (frame.type == FrameType::kDone) answer.done = decode_done(frame.payload).value();
      return answer;
    }
  }
  std::uint32_t count(std::uint32_t request, const std::string& text) {
    send(FrameType::kCountTokens, request, encode(ask(text)));
    return decode_counted(next(FrameType::kCounted, request).payload).value().input_tokens;
  }
  /// Time passes, and the reading thread looks at the clock at least once after that.
  int heartbeats_after(Duration time) {
    clock_.advance(time);
    count(900, "the reading thread has gone round once");
    count(901, "and looked at the clock before this");
    const int before = heartbeats_;
    clock_.advance(time);
    count(902, "again");
    count(903, "and again");
    return heartbeats_ - before;
  }
  /// More than one round: the loop's thread may be on its way from one wait to the next.
  void expect_heartbeats_again() {
    for (int round = 0; round < 1000; ++round) {
      if (heartbeats_after(seconds(1)) > 0) return;
    }
    ADD_FAILURE() << "no heartbeat came";
  }

  TempFolder folder_;
  SharedClock clock_;
  SharedMemorySource memory_;
  Gate gate_;
  SocketPair pair_;
  std::thread session_;
  int exit_code_ = -1;
  int heartbeats_ = 0;
  std::optional<Heartbeat> last_heartbeat_;
};

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

/// What serve_session() does with this process when these bytes are all that comes.
void serve_only(std::string_view bytes) {
  SocketPair pair;
  pair.put(bytes);
  ::shutdown(pair.end(0), SHUT_WR);
  SharedClock clock;
  SharedMemorySource memory;
  const auto make_engine = [](const engine::ProgressTick& tick) {
    return engine::make_scripted_engine(tick);
  };
  serve_session(pair.end(1), make_engine, memory, clock, {});
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

}  // namespace
}  // namespace pensieve::worker
