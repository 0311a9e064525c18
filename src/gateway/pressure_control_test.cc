// Every rung of the ladder with real workers: what happens on it, what clients see, and that the
// server takes work again afterwards. Memory and clock are the test's.
#include "gateway/pressure_control.h"

#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "gateway/testing/test_server.h"

namespace pensieve::gateway {
namespace {

using memory::Deed;
using memory::Rung;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kTick = milliseconds(250);
constexpr Bytes kSafe = 8_GiB;
constexpr Bytes kWarning = 1536_MiB;
constexpr Bytes kCritical = 768_MiB;
constexpr Bytes kEmergency = 256_MiB;

class PressureControlTest : public testing::Test {
 protected:
  /// One tick with so much available.
  void tick(Bytes available) {
    server_.memory.set_available(available);
    server_.let_pass(kTick);
  }
  bool wait_for(model::State state) {
    return server_.wait_until([&] { return server_.pool().status().state == state; });
  }
  void load() { ASSERT_EQ(server_.answer(ask("say hello")).status, 200U); }
  /// A stream that goes on until it is ended.
  HttpProbe endless() {
    HttpProbe probe = server_.connect();
    probe.send(ask_stream("delay 5; endless word"));
    EXPECT_EQ(probe.head().status, 200U);
    // Up to its first text: it runs.
    while (const auto event = probe.event()) {
      if (event->name == "content_block_delta") break;
    }
    return probe;
  }
  std::uint64_t deeds(Deed deed) const {
    return server_.governor().status(server_.clock.now()).deeds.at(static_cast<std::size_t>(deed));
  }
  std::uint64_t ends(worker::WorkerEnd end) { return server_.pool().status().ends[end]; }
  Rung rung() const { return server_.governor().rung(); }
  std::string health() { return server_.answer(get("/health")).body; }

  TestServer server_;
};

/// The data of the stream's error event; empty where it ends without one.
std::string error_in(HttpProbe& probe) {
  while (const auto event = probe.event()) {
    if (event->name == "error") return event->data;
  }
  return "";
}

TEST_F(PressureControlTest, AtWarningAnIdleModelIsUnloadedAfterAWhileAndComesBackUnseen) {
  load();
  const Duration idle_max = memory::Governor::Options().idle_at_warning;
  for (Duration idle{}; idle < idle_max; idle += kTick) {
    ASSERT_EQ(server_.pool().status().state, model::State::kReady);
    tick(kWarning);
  }
  ASSERT_TRUE(wait_for(model::State::kUnloaded));
  EXPECT_EQ(ends(worker::WorkerEnd::kClean), 1U) << "it was asked, not killed";
  EXPECT_EQ(server_.pool().status().reserved, Bytes());
  EXPECT_EQ(deeds(Deed::kUnloadedModel), 1U);
  EXPECT_NE(health().find(R"("unloaded an idle model 1 time")"), std::string::npos) << health();
  EXPECT_EQ(server_.answer(ask("say hello")).status, 200U) << "at Warning it is loaded again";
}

TEST_F(PressureControlTest, AModelInUseIsNotUnloadedAtCriticalAndGoesOnceItsRequestsAreDone) {
  HttpProbe running = server_.connect();
  running.send(ask_stream("delay 5; repeat 40 word"));
  EXPECT_EQ(running.head().status, 200U);
  ASSERT_TRUE(server_.wait_until([&] { return server_.pool().status().calls_running == 1; }));
  tick(kCritical);
  tick(kCritical);
  EXPECT_EQ(rung(), Rung::kRefuse);
  EXPECT_EQ(server_.answer(ask("say hello")).status, 503U);
  EXPECT_EQ(server_.pool().status().state, model::State::kReady);
  EXPECT_TRUE(running.event_names().ends_with("message_stop"));
  tick(kCritical);
  ASSERT_TRUE(wait_for(model::State::kUnloaded));
  EXPECT_EQ(ends(worker::WorkerEnd::kClean), 1U);
  EXPECT_EQ(deeds(Deed::kUnloadedModel), 1U);
}

TEST_F(PressureControlTest, ARequestThatComesWhileAModelUnloadsGetsItAnew) {
  load();
  // The worker is told to end within this call; the request comes before it is gone.
  ASSERT_TRUE(server_.pool().unload("a test"));
  EXPECT_EQ(server_.pool().status().state, model::State::kUnloading);
  EXPECT_FALSE(server_.pool().unload("a test")) << "it is under way";
  EXPECT_EQ(server_.answer(ask("say hello")).status, 200U);
  EXPECT_EQ(ends(worker::WorkerEnd::kClean), 1U);
}

TEST_F(PressureControlTest, WorkIsTakenAgainWithinTwoSecondsOfRelief) {
  load();
  for (const Bytes pressure : {kCritical, kEmergency}) {
    tick(pressure);
    tick(pressure);
    ASSERT_EQ(server_.answer(ask("say hello")).status, 503U);
    ASSERT_TRUE(wait_for(model::State::kUnloaded)) << "what was ours is given back";
    Duration since_relief{};
    while (server_.answer(ask("say hello")).status != 200U) {
      ASSERT_LT(since_relief, seconds(2));
      tick(kSafe);
      since_relief += kTick;
    }
    EXPECT_LE(since_relief, seconds(2));
  }
}

TEST_F(PressureControlTest, AtCriticalALoadIsStoppedAndWhoWaitsForItIsTold) {
  TestServer::Options options;
  options.model_lines = "load_ms 60000\n";
  TestServer server(std::move(options));
  HttpProbe waiting = server.connect();
  waiting.send(ask("say hello"));
  ASSERT_TRUE(server.wait_until([&] { return server.pool().status().reserved > Bytes(); }));
  server.memory.set_available(kCritical);
  server.let_pass(kTick);
  const Answer answer = waiting.answer();
  EXPECT_EQ(answer.status, 503U);
  EXPECT_NE(answer.body.find("overloaded_error"), std::string::npos) << answer.body;
  EXPECT_NE(answer.body.find("was stopped to keep memory free: level Critical, 0.75GB available"),
            std::string::npos)
      << answer.body;
  EXPECT_EQ(server.pool().status().reserved, Bytes());
  EXPECT_EQ(server.pool().status().ends[worker::WorkerEnd::kKilledForMemory], 1U);
}

TEST_F(PressureControlTest, AtEmergencyRequestsEndNewestFirstOneEachTick) {
  HttpProbe oldest = endless();
  HttpProbe middle = endless();
  HttpProbe newest = endless();
  tick(kEmergency);
  const std::string error = error_in(newest);
  EXPECT_NE(error.find("overloaded_error"), std::string::npos) << error;
  EXPECT_NE(error.find("ended to free memory: level Emergency, 0.25GB available"),
            std::string::npos)
      << error;
  EXPECT_EQ(server_.service().requests_running(), 2U);
  tick(kEmergency);
  EXPECT_NE(error_in(middle).find("overloaded_error"), std::string::npos);
  EXPECT_EQ(server_.service().requests_running(), 1U);
  EXPECT_EQ(oldest.event()->name, "content_block_delta") << "relief comes before its turn";
  tick(kSafe);
  EXPECT_EQ(server_.service().requests_running(), 1U);
  EXPECT_EQ(deeds(Deed::kEndedRequest), 2U);
  EXPECT_NE(health().find(R"("ended 2 requests")"), std::string::npos) << health();
  EXPECT_EQ(ends(worker::WorkerEnd::kKilledForMemory), 0U);
}

TEST_F(PressureControlTest, ARequestThatIsNotStreamedEndsWithThe503) {
  HttpProbe probe = server_.connect();
  probe.send(ask("delay 5; endless word"));
  ASSERT_TRUE(server_.wait_until([&] { return server_.pool().status().calls_running == 1; }));
  tick(kEmergency);
  const Answer answer = probe.answer();
  EXPECT_EQ(answer.status, 503U);
  EXPECT_EQ(answer.header("retry-after"), "15");
  EXPECT_EQ(answer.header("x-memory-status"), "Emergency");
  EXPECT_NE(answer.body.find("overloaded_error"), std::string::npos) << answer.body;
}

TEST_F(PressureControlTest, WhenNothingRunsAnyMoreTheEngineIsDropped) {
  HttpProbe only = endless();
  tick(kEmergency);
  EXPECT_NE(error_in(only), "");
  tick(kEmergency);
  ASSERT_TRUE(wait_for(model::State::kUnloaded));
  EXPECT_EQ(ends(worker::WorkerEnd::kKilledForMemory), 1U);
  EXPECT_EQ(deeds(Deed::kDroppedEngine), 1U);
  EXPECT_EQ(rung(), Rung::kDropEngines);
  EXPECT_EQ(server_.pool().status().reserved, Bytes());
  EXPECT_EQ(server_.answer(get("/health")).status, 200U) << "the front door stays";
  EXPECT_FALSE(server_.stop_asked());
}

TEST_F(PressureControlTest, AnEmergencyThatLastsDropsTheEngineAndEveryClientIsTold) {
  TestServer::Options options;
  options.governor.end_every = std::chrono::hours(1);  // So that requests are left at the end.
  TestServer server(std::move(options));
  std::vector<HttpProbe> probes;
  for (int i = 0; i < 3; ++i) {
    probes.push_back(server.connect());
    probes.back().send(ask_stream("delay 5; endless word"));
    EXPECT_EQ(probes.back().head().status, 200U);
  }
  ASSERT_TRUE(server.wait_until([&] { return server.pool().status().calls_running == 3; }));
  server.memory.set_available(kEmergency);
  for (Duration lasts{}; lasts <= seconds(3); lasts += kTick) server.let_pass(kTick);
  for (HttpProbe& probe : probes) {
    EXPECT_NE(error_in(probe).find("level Emergency, 0.25GB available"), std::string::npos);
  }
  ASSERT_TRUE(
      server.wait_until([&] { return server.pool().status().state == model::State::kUnloaded; }));
  EXPECT_EQ(server.pool().status().ends[worker::WorkerEnd::kKilledForMemory], 1U);
}

TEST_F(PressureControlTest, ALostReadingRefusesButEndsNothing) {
  HttpProbe running = endless();
  server_.memory.fail("no such file");
  for (int i = 0; i < 60; ++i) server_.let_pass(kTick);
  EXPECT_EQ(rung(), Rung::kRefuse);
  EXPECT_EQ(server_.answer(ask("say hello")).status, 503U);
  EXPECT_EQ(server_.service().requests_running(), 1U);
  running.hang_up();
  ASSERT_TRUE(server_.wait_until([&] { return server_.service().requests_active() == 0; }));
  for (int i = 0; i < 60; ++i) server_.let_pass(kTick);
  EXPECT_EQ(server_.pool().status().state, model::State::kReady)
      << "no engine is dropped for a lost reading";
}

TEST_F(PressureControlTest, HealthSaysWhoseThePressureIs) {
  tick(kCritical);
  EXPECT_NE(health().find(R"("whose":"others")"), std::string::npos) << "we hold nothing";
  for (int i = 0; i < 60; ++i) tick(kSafe);
  HttpProbe running = server_.connect();
  running.send(ask_stream("grow 300; delay 5; endless word"));
  ASSERT_TRUE(
      server_.wait_until([&] { return server_.pool().status().heartbeat.anonymous >= 300_MiB; }));
  tick(kCritical);
  EXPECT_NE(health().find(R"("whose":"ours")"), std::string::npos) << health();
}

TEST_F(PressureControlTest, AShutDownComesOnlyWhereTheUserHasChosenIt) {
  for (int i = 0; i < 40; ++i) tick(kEmergency);
  EXPECT_FALSE(server_.stop_asked());
  TestServer::Options options;
  options.governor.shut_down_on_emergency = true;
  TestServer server(std::move(options));
  server.memory.set_available(kEmergency);
  for (Duration lasts{}; lasts < seconds(6); lasts += kTick) server.let_pass(kTick);
  EXPECT_FALSE(server.stop_asked());
  server.let_pass(kTick);
  EXPECT_TRUE(server.stop_asked());
}

TEST_F(PressureControlTest, LimitsFollowTheLadderBothWaysAndNoRequestIsDropped) {
  const auto limits = [&] { return server_.pool().status().limits; };
  std::vector<HttpProbe> probes;
  for (int i = 0; i < 3; ++i) {
    probes.push_back(server_.connect());
    probes.back().send(ask_stream("delay 5; repeat 100 word"));
    EXPECT_EQ(probes.back().head().status, 200U);
  }
  ASSERT_TRUE(server_.wait_until([&] { return server_.pool().status().calls_running == 3; }));
  tick(kSafe);
  EXPECT_EQ(limits().sequences_max, 4U);
  tick(kWarning);
  EXPECT_EQ(limits().sequences_max, 2U);
  EXPECT_EQ(limits().step_tokens_max, model::Pool::kStepTokensMax / 4);
  tick(kCritical);
  EXPECT_EQ(limits().sequences_max, 1U);
  for (int i = 0; i < 40; ++i) tick(kSafe);
  EXPECT_EQ(limits().sequences_max, 4U);
  EXPECT_EQ(limits().step_tokens_max, model::Pool::kStepTokensMax);
  for (HttpProbe& probe : probes) EXPECT_TRUE(probe.event_names().ends_with("message_stop"));
  EXPECT_TRUE(server_.pool().status().ends.empty()) << "one worker from first to last";
}

TEST_F(PressureControlTest, AMoveIsOneLogLine) {
  testing::internal::CaptureStderr();
  for (int i = 0; i < 4; ++i) tick(kCritical);
  const std::string log = testing::internal::GetCapturedStderr();
  const std::string_view line =
      "memory pressure: refuse (new requests are refused); level Critical, 0.75GB available, "
      "0.00GB held by our workers";
  const std::size_t first = log.find(line);
  ASSERT_NE(first, std::string::npos) << log;
  EXPECT_EQ(log.find("memory pressure", first + 1), std::string::npos) << log;
}

}  // namespace
}  // namespace pensieve::gateway
