// A worker's whole life over a real socket: the session runs in a thread of the test, its engine is
// the scripted one, and its clock, memory and time inside the engine are the test's.
#pragma once

#include <sys/time.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "engine/testing/scripted.h"
#include "worker/frame.h"
#include "worker/messages.h"
#include "worker/session.h"
#include "worker/testing/gate.h"
#include "worker/testing/shared_fakes.h"
#include "worker/testing/socket_pair.h"
#include "worker/testing/temp_folder.h"
#include "worker/worker_end.h"

namespace pensieve::worker {

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
            .heartbeat_every = std::chrono::milliseconds(5)};
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

  std::string load_payload(const std::string& model = "", std::uint32_t cells = 0,
                           std::uint32_t cells_max = 0) {
    return encode(engine::LoadOptions{.model_path = folder_.write("m.script", model),
                                      .cells = cells,
                                      .cells_max = cells_max,
                                      .sequences_max = 2,
                                      .step_tokens_max = 64});
  }
  void load(const std::string& model = "", std::uint32_t cells = 0, std::uint32_t cells_max = 0) {
    next(FrameType::kHello, 0);
    send(FrameType::kLoad, 1, load_payload(model, cells, cells_max));
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
      if (heartbeats_after(std::chrono::seconds(1)) > 0) return;
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

/// What serve_session() does with this process when these bytes are all that comes.
inline void serve_only(std::string_view bytes) {
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

}  // namespace pensieve::worker
