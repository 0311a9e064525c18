// run_server() from its first listen() to its end, in a thread of its own and with the real clock.
#include "gateway/server.h"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <future>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Result = std::expected<void, StartFailure>;

void wait_a_little() {
  ::poll(nullptr, 0, 2);
}

ServerOptions options_for(const TemporaryFolder& folder, std::string_view model_lines = "") {
  ServerOptions options;
  options.port = free_port();
  options.pool = TestServer::Options::default_pool();
  options.pool.model = folder.model(model_lines);
  return options;
}

/// A server in its own thread. Stops it by /v1/pensieve/stop where the test has not.
class RunningServer {
 public:
  RunningServer(memory::MemorySource& source, ServerOptions options)
      : port_(options.port), thread_([this, &source, options = std::move(options)] {
          result_ = run_server(source, steady_clock(), options,
                               [this](const Started& started) { started_.set_value(started); });
          ended_ = true;
        }) {}
  ~RunningServer() {
    if (thread_.joinable()) stop();
  }

  Started started() {
    std::future<Started> started = started_.get_future();
    PENSIEVE_CHECK(started.wait_for(seconds(30)) == std::future_status::ready);
    return started.get();
  }
  /// Waits until somebody listens.
  HttpProbe connect() {
    const TimePoint give_up = steady_clock().now() + seconds(30);
    while (true) {
      HttpProbe probe(port_, wait_a_little);
      if (probe.connected() || ended_ || steady_clock().now() > give_up) return probe;
      wait_a_little();
    }
  }
  Answer answer(std::string_view request) {
    HttpProbe probe = connect();
    probe.send(request);
    return probe.answer();
  }
  bool listens() const { return HttpProbe(port_, wait_a_little).connected(); }

  Result stop() {
    if (HttpProbe probe = connect(); probe.connected()) {
      probe.send(post("/v1/pensieve/stop", ""));
      EXPECT_EQ(probe.answer().body, R"({"status":"stopping"})");
    }
    return end();
  }
  Result end() {
    thread_.join();
    return result_;
  }

 private:
  const std::uint16_t port_;
  std::promise<Started> started_;
  std::atomic<bool> ended_ = false;
  Result result_;
  std::thread thread_;  // The last: it uses all of the above.
};

class ServerTest : public testing::Test {
 protected:
  ServerTest() { memory.set_available(8_GiB); }

  TemporaryFolder folder;
  memory::FakeMemorySource memory;
};

/// Says one thing for the first `count` readings and another from then on.
class TurningMemory final : public memory::MemorySource {
 public:
  TurningMemory(Bytes first, int count, Bytes later) : first_(first), left_(count), later_(later) {}
  ::pensieve::Result<memory::Reading> read() override {
    return memory::Reading{left_-- > 0 ? first_ : later_, 16_GiB, "machine"};
  }

 private:
  Bytes first_;
  int left_;
  Bytes later_;
};

TEST_F(ServerTest, AServerTellsWhatItHasWhenItsModelIsLoaded) {
  ServerOptions options = options_for(folder, "context_tokens 4096");
  const std::uint16_t port = options.port;
  RunningServer server(memory, std::move(options));
  const Started started = server.started();
  EXPECT_EQ(started.port, port);
  EXPECT_FALSE(started.not_loaded);
  EXPECT_EQ(started.model.state, model::State::kReady);
  EXPECT_EQ(started.model.info->context_tokens, 4096U);
  EXPECT_EQ(started.memory.level, memory::Level::kSafe);
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
  EXPECT_TRUE(server.stop());
}

TEST_F(ServerTest, AServerWithNothingButDefaultsRefusesAtCritical) {
  memory.set_available(saturating_sub(1_GiB, Bytes(1)));
  ServerOptions options;
  options.port = free_port();
  options.pool.model = folder.model("");
  options.pool.worker_program = PENSIEVE_TEST_WORKER;
  RunningServer server(memory, std::move(options));
  EXPECT_TRUE(server.started().not_loaded);
  const Answer answer = server.answer(ask("say hello"));
  EXPECT_EQ(answer.status, 503U);
  EXPECT_EQ(answer.header("x-memory-status"), "Critical");
  EXPECT_EQ(answer.header("x-available-memory-gb"), "0.99");
}

TEST_F(ServerTest, AnyFreePortIsTakenWhereNoneIsNamed) {
  ServerOptions options = options_for(folder);
  options.port = 0;
  std::promise<std::uint16_t> port;
  std::thread thread([&] {
    EXPECT_TRUE(run_server(memory, steady_clock(), options,
                           [&](const Started& started) { port.set_value(started.port); }));
  });
  HttpProbe probe(port.get_future().get(), wait_a_little);
  probe.send(post("/v1/pensieve/stop", ""));
  EXPECT_EQ(probe.answer().status, 200U);
  thread.join();
}

TEST_F(ServerTest, HealthAnswersBeforeTheModelIsLoadedAndAStopEndsTheLoad) {
  ServerOptions options = options_for(folder, "load_ms 60000");
  options.drain_max = milliseconds(100);
  RunningServer server(memory, std::move(options));
  const Answer health = server.answer(get("/health"));
  EXPECT_EQ(health.status, 200U);
  EXPECT_NE(health.body.find(R"("state":"loading")"), std::string::npos) << health.body;
  HttpProbe waiting = server.connect();
  waiting.send(ask("say hello"));
  EXPECT_TRUE(waiting.is_silent());
  EXPECT_TRUE(server.stop());
}

TEST_F(ServerTest, AChangeOfTheLevelIsLoggedOnceAndCounts) {
  TurningMemory turning(8_GiB, 30, 100_MiB);
  testing::internal::CaptureStderr();
  {
    ServerOptions options = options_for(folder);
    RunningServer server(turning, std::move(options));
    server.started();
    while (server.answer(ask("say hello")).status == 200) {
    }
    EXPECT_EQ(server.answer(ask("say hello")).status, 503U);
    const TimePoint later = steady_clock().now() + 4 * memory::Monitor::kSampleEvery;
    while (steady_clock().now() < later) wait_a_little();
  }
  const std::string log = testing::internal::GetCapturedStderr();
  const std::string line = "memory level Emergency: 0.09GB available, limited by machine";
  const std::size_t first = log.find(line);
  ASSERT_NE(first, std::string::npos) << log;
  EXPECT_EQ(log.find(line, first + 1), std::string::npos) << log;
}

TEST_F(ServerTest, BeyondTheLimitTheLongestWaitingConnectionGivesWayToTheNewest) {
  ServerOptions options = options_for(folder);
  options.connections_max = 2;
  RunningServer server(memory, std::move(options));
  server.started();
  HttpProbe first = server.connect();
  HttpProbe second = server.connect();
  for (HttpProbe* probe : {&first, &second}) {
    probe->send(get("/health"));
    EXPECT_EQ(probe->answer().status, 200U);
  }
  HttpProbe third = server.connect();
  third.send(get("/health"));
  EXPECT_EQ(third.answer().status, 200U);
  EXPECT_TRUE(first.closed_by_server());
  second.send(get("/health"));
  EXPECT_EQ(second.answer().status, 200U);
}

TEST_F(ServerTest, WhereAllConnectionsAreBeingAnsweredTheNewOneIsClosed) {
  ServerOptions options = options_for(folder);
  options.connections_max = 2;
  RunningServer server(memory, std::move(options));
  server.started();
  HttpProbe first = server.connect();
  HttpProbe second = server.connect();
  for (HttpProbe* probe : {&first, &second}) {
    probe->send(ask_stream("delay 20; endless word"));
    EXPECT_EQ(probe->head().status, 200U);
  }
  HttpProbe third = server.connect();
  EXPECT_TRUE(third.closed_by_server());
  second.hang_up();
  // The place is free as soon as the server has seen that.
  const TimePoint give_up = steady_clock().now() + seconds(30);
  while (true) {
    HttpProbe next = server.connect();
    next.send(get("/health"));
    if (!next.closed_by_server() || steady_clock().now() > give_up) {
      EXPECT_EQ(next.answer().status, 200U);
      break;
    }
  }
  first.hang_up();
}

TEST_F(ServerTest, AStopLetsARunningRequestFinishAndTakesNoNewOne) {
  RunningServer server(memory, options_for(folder));
  server.started();
  HttpProbe idle = server.connect();
  idle.send(get("/health"));
  EXPECT_EQ(idle.answer().status, 200U);
  HttpProbe running = server.connect();
  running.send(ask_stream("delay 20; repeat 50 word"));
  running.head();
  HttpProbe stopping = server.connect();
  stopping.send(post("/v1/pensieve/stop", ""));
  EXPECT_EQ(stopping.answer().status, 200U);
  EXPECT_TRUE(stopping.closed_by_server());
  EXPECT_TRUE(idle.closed_by_server());
  EXPECT_FALSE(server.listens());
  EXPECT_TRUE(running.event_names().ends_with("message_delta message_stop"));
  EXPECT_TRUE(running.closed_by_server());
  EXPECT_TRUE(server.end());
}

TEST_F(ServerTest, ARequestThatDoesNotFinishInTimeIsCutOffAndItsClientIsTold) {
  ServerOptions options = options_for(folder);
  options.drain_max = milliseconds(100);
  RunningServer server(memory, std::move(options));
  server.started();
  HttpProbe stream = server.connect();
  stream.send(ask_stream("delay 5; endless word"));
  stream.head();
  HttpProbe whole = server.connect();
  whole.send(ask("delay 5; endless word"));
  EXPECT_TRUE(whole.is_silent());
  EXPECT_TRUE(server.stop());
  EXPECT_EQ(whole.answer().status, 503U);
  EXPECT_TRUE(stream.event_names().ends_with("error"));
}

TEST_F(ServerTest, AWorkerThatDoesNotStopIsEndedWithTheServer) {
  ServerOptions options = options_for(folder);
  options.drain_max = milliseconds(1);
  RunningServer server(memory, std::move(options));
  server.started();
  HttpProbe probe = server.connect();
  probe.send(ask_stream("hang"));
  probe.head();
  EXPECT_TRUE(server.stop());
}

TEST_F(ServerTest, ASignalDrainsAndEndsTheServer) {
  for (const int signal : {SIGINT, SIGTERM}) {
    RunningServer server(memory, options_for(folder));
    server.started();
    HttpProbe running = server.connect();
    running.send(ask_stream("delay 5; repeat 20 word"));
    running.head();
    ::kill(::getpid(), signal);
    EXPECT_TRUE(running.event_names().ends_with("message_stop"));
    EXPECT_TRUE(server.end());
  }
}

TEST_F(ServerTest, ASecondSignalEndsTheProcessAtOnce) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const auto twice = [](const Started&) {
          ::kill(::getpid(), SIGINT);
          ::kill(::getpid(), SIGINT);
        };
        static_cast<void>(run_server(memory, steady_clock(), options_for(folder), twice));
      },
      testing::ExitedWithCode(130), "second signal");
}

TEST_F(ServerTest, APortThatIsTakenIsAFailureOfItsOwn) {
  ServerOptions options = options_for(folder);
  const ServerOptions same = options;
  RunningServer server(memory, std::move(options));
  server.started();
  memory::FakeMemorySource other;
  const Result second =
      run_server(other, steady_clock(), same, [](const Started&) { ADD_FAILURE(); });
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, StartFailure::Kind::kPortInUse);
  EXPECT_NE(second.error().message.find("choose one with --port"), std::string::npos);
}

TEST_F(ServerTest, WhatCannotStartSaysWhy) {
  using Kind = StartFailure::Kind;
  const auto failure = [&](const ServerOptions& options) {
    const Result result =
        run_server(memory, steady_clock(), options, [](const Started&) { ADD_FAILURE(); });
    return result ? StartFailure{Kind::kPortInUse, "it started"} : result.error();
  };
  ServerOptions options = options_for(folder);
  options.host = "nowhere";
  EXPECT_EQ(failure(options).kind, Kind::kAddress);
  EXPECT_EQ(failure(options).message, "host \"nowhere\" is not an IP address");
  EXPECT_EQ(failure(options_for(folder, "no such key")).kind, Kind::kModel);
  const StartFailure large = failure(options_for(folder, "plan_mib 102400"));
  EXPECT_EQ(large.kind, Kind::kMemory);
  EXPECT_NE(large.message.find("needs 100.00GB"), std::string::npos) << large.message;
}

TEST_F(ServerTest, AMissingWorkerProgramIsAFailureAndNotSilence) {
  ServerOptions options = options_for(folder);
  options.pool.worker_program = folder.at("none");
  const Result result =
      run_server(memory, steady_clock(), options, [](const Started&) { ADD_FAILURE(); });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, StartFailure::Kind::kModel);
  EXPECT_NE(result.error().message.find("cannot start the worker"), std::string::npos);
}

TEST_F(ServerTest, AModelThatDoesNotFitNowIsTriedAgainByTheNextRequest) {
  TurningMemory turning(1_GiB, 8, 8_GiB);
  RunningServer server(turning, options_for(folder, "plan_mib 4096"));
  const Started started = server.started();
  ASSERT_TRUE(started.not_loaded);
  EXPECT_EQ(started.not_loaded->kind, model::LoadFailure::Kind::kNotNow);
  const TimePoint give_up = steady_clock().now() + seconds(30);
  while (server.answer(ask("say hello")).status != 200 && steady_clock().now() < give_up) {
    wait_a_little();
  }
  EXPECT_EQ(server.answer(ask("say hello")).status, 200U);
}

}  // namespace
}  // namespace pensieve::gateway
