// The gateway's end of real worker processes, in every way they end. Waits are for what happens.
#include "worker/worker_link.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include <gtest/gtest.h>

#include "worker/testing/io_driver.h"
#include "worker/testing/stand_in.h"
#include "worker/testing/temp_folder.h"

namespace pensieve::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class WorkerLinkTest : public testing::Test {
 protected:
  ~WorkerLinkTest() override {
    if (link_) link_->kill(WorkerEnd::kKilled);
    link_.reset();
    EXPECT_TRUE(io_.run_dry()) << "a coroutine of the link never ends";
  }

  void start(const WorkerLink::Options& options) {
    auto link = WorkerLink::start(io_.io.get_executor(), io_.clock, options,
                                  [this](const WorkerGone& gone) { ends_.push_back(gone); });
    ASSERT_TRUE(link) << link.error().message;
    link_ = *std::move(link);
  }
  void start_loaded(const std::string& model = "") {
    const std::string path = folder_.write("m.script", model);
    start(real_worker(path));
    const auto call = open(
        FrameType::kLoad,
        encode(engine::LoadOptions{.model_path = path, .sequences_max = 2, .step_tokens_max = 64}));
    ASSERT_EQ(closing_frame(*call).type, FrameType::kLoaded);
  }

  std::unique_ptr<Call> open(FrameType type, std::string_view payload = {}) {
    auto call = link_->open(type, payload);
    EXPECT_TRUE(call) << call.error().message;
    return call ? *std::move(call) : nullptr;
  }
  std::unique_ptr<Call> generate(const std::string& text) {
    GenerateRequest request;
    request.prompt.messages = {{engine::Role::kUser, text}};
    request.output_tokens_max = 1000;
    return open(FrameType::kGenerate, encode(request));
  }
  CallEvent next(Call& call) { return io_.wait_for(call.next(TimePoint::max())); }
  Frame next_frame(Call& call) {
    CallEvent event = next(call);
    EXPECT_TRUE(std::holds_alternative<Frame>(event)) << event.index();
    return std::holds_alternative<Frame>(event) ? std::get<Frame>(std::move(event)) : Frame{};
  }
  /// Takes frames up to the one that ends the call; text on the way is kept in text_.
  Frame closing_frame(Call& call) {
    while (true) {
      Frame frame = next_frame(call);
      if (frame.type == FrameType::kText) text_ += frame.payload;
      if (frame.type == FrameType::kAccepted || frame.type == FrameType::kStarted ||
          frame.type == FrameType::kText || frame.type == FrameType::kLoadProgress) {
        continue;
      }
      return frame;
    }
  }
  /// Takes frames until the worker is gone, which is told exactly once.
  WorkerEnd gone_of(Call& call) {
    while (true) {
      const CallEvent event = next(call);
      if (const auto* gone = std::get_if<WorkerGone>(&event)) return gone->end;
      EXPECT_TRUE(std::holds_alternative<Frame>(event));
    }
  }
  /// Waits until the link has told of its end, and that it does so once.
  WorkerEnd end() {
    EXPECT_TRUE(io_.run_until([&] { return !ends_.empty(); }));
    EXPECT_TRUE(io_.run_dry());
    EXPECT_EQ(ends_.size(), 1U);
    EXPECT_FALSE(link_->usable());
    EXPECT_TRUE(link_->gone());
    return ends_.empty() ? WorkerEnd::kClean : ends_.front().end;
  }
  void expect_end_of_script(const std::string& script, WorkerEnd expected) {
    start_loaded();
    const auto call = generate("script: say first words; " + script);
    EXPECT_EQ(gone_of(*call), expected) << script;
    EXPECT_EQ(end(), expected) << script;
  }

  TempFolder folder_;
  IoDriver io_;
  std::shared_ptr<Link> link_;
  std::vector<WorkerGone> ends_;
  std::string text_;
};

TEST_F(WorkerLinkTest, AWorkerSaysHelloServesAndStopsWhenAsked) {
  start_loaded();
  ASSERT_NE(link_->hello(), nullptr);
  EXPECT_EQ(link_->hello()->engine, "scripted");
  const auto call = generate("script: say one two three");
  EXPECT_EQ(closing_frame(*call).type, FrameType::kDone);
  EXPECT_EQ(text_, "one two three");
  link_->shut_down(seconds(60));
  EXPECT_EQ(end(), WorkerEnd::kClean);
  EXPECT_EQ(ends_.front().description, "clean (exit code 0)");
}

TEST_F(WorkerLinkTest, TwoCallsAreKeptApart) {
  start_loaded();
  const auto first = generate("script: repeat 20 a");
  const auto second = generate("script: repeat 20 b");
  EXPECT_NE(first->id(), second->id());
  EXPECT_EQ(closing_frame(*second).type, FrameType::kDone);
  EXPECT_EQ(text_.find('a'), std::string::npos);
  text_.clear();
  EXPECT_EQ(closing_frame(*first).type, FrameType::kDone);
  EXPECT_EQ(text_.find('b'), std::string::npos);
}

TEST_F(WorkerLinkTest, HeartbeatsShowWhatTheWorkerHolds) {
  start_loaded("weights_mib 8\n");
  ASSERT_TRUE(io_.run_until([&] { return link_->last_heartbeat().anonymous >= 8_MiB; }));
  EXPECT_GT(link_->last_heartbeat().resident, link_->last_heartbeat().anonymous);
}

TEST_F(WorkerLinkTest, KillFromOutsideIsToldOnceToEachOpenCallAndThenToTheOwner) {
  start_loaded();
  const auto ended = generate("script: say done");
  EXPECT_EQ(closing_frame(*ended).type, FrameType::kDone);
  const auto first = generate("script: delay 5; endless a");
  const auto second = generate("script: delay 5; endless b");
  EXPECT_EQ(next_frame(*second).type, FrameType::kAccepted);
  ASSERT_EQ(::kill(link_->pid(), SIGKILL), 0);
  EXPECT_EQ(gone_of(*first), WorkerEnd::kKilled);
  EXPECT_EQ(gone_of(*second), WorkerEnd::kKilled);
  EXPECT_EQ(end(), WorkerEnd::kKilled);
  EXPECT_EQ(ends_.front().description, "killed (signal 9, Killed)");
  const auto silent = io_.begin(ended->next(io_.clock.now()));
  ASSERT_TRUE(io_.run_until([&] { return silent->has_value(); }));
  EXPECT_TRUE(std::holds_alternative<TimedOut>(**silent)) << "it had its end before";
}

TEST_F(WorkerLinkTest, AnAbortIsACrash) {
  expect_end_of_script("abort", WorkerEnd::kCrashed);
}

TEST_F(WorkerLinkTest, ASegmentationFaultIsACrash) {
  expect_end_of_script("segv", WorkerEnd::kCrashed);
  EXPECT_NE(ends_.front().description.find("signal 11"), std::string::npos);
}

TEST_F(WorkerLinkTest, AnExitThatNobodyAskedForIsACrash) {
  expect_end_of_script("exit 0", WorkerEnd::kCrashed);
}

TEST_F(WorkerLinkTest, AnEngineThatFailsEndsItsWorker) {
  expect_end_of_script("fail", WorkerEnd::kCrashed);
  EXPECT_EQ(ends_.front().description, "crashed (exit code 92)");
}

TEST_F(WorkerLinkTest, AFailedAllocationIsOutOfMemory) {
  expect_end_of_script("badalloc", WorkerEnd::kOutOfMemory);
  EXPECT_EQ(ends_.front().description, "out_of_memory (exit code 91)");
}

TEST_F(WorkerLinkTest, AKillForMemoryIsNamedSo) {
  start_loaded();
  const auto call = generate("script: delay 5; endless a");
  link_->kill(WorkerEnd::kKilledForMemory);
  EXPECT_EQ(gone_of(*call), WorkerEnd::kKilledForMemory);
  EXPECT_EQ(end(), WorkerEnd::kKilledForMemory);
}

TEST_F(WorkerLinkTest, GarbageOnTheSocketIsAProtocolError) {
  start(stand_in(std::string("echo this is no frame at all >&3; ") + kStaysDeaf));
  const auto call = open(FrameType::kPlan);
  EXPECT_EQ(gone_of(*call), WorkerEnd::kProtocolError);
  EXPECT_EQ(end(), WorkerEnd::kProtocolError);
}

TEST_F(WorkerLinkTest, AFrameThatOnlyTheGatewayMaySendIsAProtocolError) {
  start(stand_in(sends_frame(FrameType::kShutdown, 0, "") + kStaysDeaf));
  EXPECT_EQ(end(), WorkerEnd::kProtocolError);
}

TEST_F(WorkerLinkTest, AHeartbeatThatIsNoneIsAProtocolError) {
  start(stand_in(sends_frame(FrameType::kHeartbeat, 0, "{}") + kStaysDeaf));
  EXPECT_EQ(end(), WorkerEnd::kProtocolError);
}

TEST_F(WorkerLinkTest, AFrameAboutTheWorkerGoesToTheOwner) {
  WorkerLink::Options options = stand_in(sends_frame(FrameType::kLoadProgress, 0, "0.5") +
                                         sends_frame(FrameType::kText, 7, "of no call") +
                                         sends_frame(FrameType::kText, 0, "bad") + kStaysDeaf);
  std::vector<std::string> payloads;
  options.on_frame = [&](const Frame& frame) -> Result<void> {
    payloads.push_back(frame.payload);
    if (frame.payload == "bad") return fail(Code::kInvalidArgument, "makes no sense");
    return {};
  };
  start(options);
  EXPECT_EQ(end(), WorkerEnd::kProtocolError) << "the owner did not understand the second one";
  EXPECT_EQ(payloads, (std::vector<std::string>{"0.5", "bad"}));
}

TEST_F(WorkerLinkTest, AFrameAboutTheWorkerReachesIt) {
  // The owner hears of the frame, because the worker answers when all 20 bytes are there.
  WorkerLink::Options options =
      stand_in("head -c 20 <&3 >/dev/null; " + sends_frame(FrameType::kLoadProgress, 0, "got it") +
               kStaysDeaf);
  std::string answer;
  options.on_frame = [&](const Frame& frame) -> Result<void> {
    answer = frame.payload;
    return {};
  };
  start(options);
  EXPECT_TRUE(link_->send(FrameType::kClearCache, "1234"));
  EXPECT_TRUE(io_.run_until([&] { return answer == "got it"; }));
  link_->kill(WorkerEnd::kKilled);
  EXPECT_EQ(end(), WorkerEnd::kKilled);
  EXPECT_EQ(link_->send(FrameType::kClearCache, "").error().code, Code::kUnavailable);
}

TEST_F(WorkerLinkTest, AFrameThatIsTooLongIsAProtocolErrorBeforeItsPayload) {
  const auto header = encode_header({FrameType::kText, 1, kFramePayloadBytesMax + 1});
  start(
      stand_in(sends({reinterpret_cast<const char*>(header.data()), header.size()}) + kStaysDeaf));
  EXPECT_EQ(end(), WorkerEnd::kProtocolError);
}

TEST_F(WorkerLinkTest, AnEndInTheMiddleOfAFrameIsWhatTheProcessDied) {
  start(stand_in(sends(encode_frame(FrameType::kText, 1, "12345").substr(0, 18)) + "exit 3"));
  EXPECT_EQ(end(), WorkerEnd::kCrashed);
  EXPECT_EQ(ends_.front().description, "crashed (exit code 3)");
}

TEST_F(WorkerLinkTest, AChildThatClosesItsSocketAndLivesOnIsKilled) {
  start(stand_in(kStaysWithoutSocket));
  const auto call = open(FrameType::kPlan);
  ASSERT_TRUE(io_.run_until([&] { return !link_->usable(); }));
  EXPECT_FALSE(link_->open(FrameType::kPlan, {})) << "nobody would answer";
  EXPECT_TRUE(ends_.empty()) << "it may still be about to exit";
  io_.clock.advance(seconds(3));
  EXPECT_EQ(gone_of(*call), WorkerEnd::kProtocolError);
  EXPECT_EQ(end(), WorkerEnd::kProtocolError);
}

TEST_F(WorkerLinkTest, WhatAWorkerHasStartedDoesNotHideItsEnd) {
  start(stand_in("sleep 60 & exit 3"));  // The child has the socket as well.
  const auto call = open(FrameType::kPlan);
  EXPECT_EQ(gone_of(*call), WorkerEnd::kCrashed);
  EXPECT_EQ(end(), WorkerEnd::kCrashed);
}

TEST_F(WorkerLinkTest, NorDoesWhatHasLeftItsProcessGroup) {
  start(stand_in("setsid sleep 20 & exit 3"));
  const auto call = open(FrameType::kPlan);
  EXPECT_EQ(gone_of(*call), WorkerEnd::kCrashed);
  EXPECT_EQ(end(), WorkerEnd::kCrashed);
}

TEST_F(WorkerLinkTest, AKillReachesWhatAWorkerHasStarted) {
  WorkerLink::Options options = stand_in("sleep 60; exit 3");
  options.hang_after = seconds(10);
  start(options);
  const auto call = open(FrameType::kPlan);
  io_.clock.advance(seconds(11));
  EXPECT_EQ(gone_of(*call), WorkerEnd::kDeadline);
  EXPECT_EQ(end(), WorkerEnd::kDeadline);
}

TEST_F(WorkerLinkTest, AStoppedProcessMissesItsDeadline) {
  WorkerLink::Options options = real_worker(folder_.write("m.script", ""));
  options.hang_after = seconds(10);
  start(options);
  ASSERT_TRUE(io_.run_until([&] { return link_->hello() != nullptr; }));
  const auto call = open(FrameType::kClearCache);
  EXPECT_EQ(closing_frame(*call).type, FrameType::kCleared);
  ASSERT_EQ(::kill(link_->pid(), SIGSTOP), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(link_->pid(), &status, WUNTRACED), link_->pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  while (io_.io.poll() > 0) {
  }  // What it had said before is read.
  const auto unanswered = open(FrameType::kClearCache);
  io_.clock.advance(seconds(11));
  EXPECT_EQ(gone_of(*unanswered), WorkerEnd::kDeadline);
  EXPECT_EQ(end(), WorkerEnd::kDeadline);
}

TEST_F(WorkerLinkTest, AWorkerThatDoesNotStopWhenAskedMissesItsDeadline) {
  start(stand_in(kStaysDeaf));
  link_->shut_down(seconds(5));
  io_.clock.advance(seconds(5));
  EXPECT_EQ(end(), WorkerEnd::kDeadline);
}

TEST_F(WorkerLinkTest, AProgramThatDoesNotExistIsAnError) {
  WorkerLink::Options options = real_worker(folder_.write("m.script", ""));
  options.program = "/nowhere/pensieve-worker";
  const auto link = WorkerLink::start(io_.io.get_executor(), io_.clock, options,
                                      [this](const WorkerGone& gone) { ends_.push_back(gone); });
  ASSERT_FALSE(link);
  EXPECT_EQ(link.error().code, Code::kNotFound);
  EXPECT_TRUE(ends_.empty());
}

TEST_F(WorkerLinkTest, AWorkerThatIsUsedWronglyEndsByItself) {
  WorkerLink::Options options = real_worker(folder_.write("m.script", ""));
  options.args = {"--engine", "none"};
  start(options);
  EXPECT_EQ(end(), WorkerEnd::kCrashed);
  EXPECT_EQ(ends_.front().description, "crashed (exit code 93)");
  EXPECT_EQ(link_->open(FrameType::kPlan, {}).error().code, Code::kUnavailable);
}

TEST_F(WorkerLinkTest, ACallThatIsDroppedIsCancelledInTheWorker) {
  start_loaded();
  auto call = generate("script: delay 5; endless a");
  while (next_frame(*call).type != FrameType::kText) {
  }
  ASSERT_TRUE(io_.run_until([&] { return link_->last_heartbeat().running == 1; }));
  call.reset();
  EXPECT_TRUE(io_.run_until([&] { return link_->last_heartbeat().running == 0; }));
  const auto after = generate("script: say fine");
  EXPECT_EQ(closing_frame(*after).type, FrameType::kDone);
  EXPECT_EQ(text_, "fine");
}

TEST_F(WorkerLinkTest, ACallThatIsCancelledIsOverForTheWorkerThoughItsOwnerKeepsIt) {
  start_loaded();
  const auto call = generate("script: delay 5; endless word");
  ASSERT_TRUE(io_.run_until([&] { return link_->last_heartbeat().running == 1; }));
  EXPECT_EQ(link_->calls_running(), 1U);
  call->cancel();
  EXPECT_EQ(link_->calls_running(), 0U);
  EXPECT_TRUE(io_.run_until([&] { return link_->last_heartbeat().running == 0; }));
}

TEST_F(WorkerLinkTest, TextThatNobodyHasTakenYetComesAsOne) {
  start(stand_in(sends_frame(FrameType::kText, 1, "ab") + sends_frame(FrameType::kText, 1, "c") +
                 sends_frame(FrameType::kDone, 1, "{}") + sends_frame(FrameType::kText, 1, "late") +
                 sends_frame(FrameType::kHello, 0, encode(Hello{"x", "y"})) + kStaysDeaf));
  const auto call = open(FrameType::kGenerate);
  ASSERT_TRUE(io_.run_until([&] { return link_->hello() != nullptr; }));
  EXPECT_EQ(next_frame(*call).payload, "abc");
  EXPECT_EQ(next_frame(*call).type, FrameType::kDone);
  EXPECT_TRUE(std::holds_alternative<TimedOut>(io_.wait_for(call->next(io_.clock.now()))))
      << "nothing comes after the end";
}

TEST_F(WorkerLinkTest, AClientThatDoesNotReadIsGivenUpAndNotBuffered) {
  static_assert(WorkerLink::kCallBufferBytesMax < 5'000'000);
  const auto header = encode_header({FrameType::kText, 1, 5'000'000});
  start(stand_in(sends({reinterpret_cast<const char*>(header.data()), header.size()}) +
                 "head -c 5000000 /dev/zero >&3; " +
                 sends_frame(FrameType::kHello, 0, encode(Hello{"x", "y"})) + kStaysDeaf));
  const auto call = open(FrameType::kGenerate);
  ASSERT_TRUE(io_.run_until([&] { return link_->hello() != nullptr; }));
  EXPECT_EQ(next_frame(*call).type, FrameType::kText);
  const Frame failed = next_frame(*call);
  ASSERT_EQ(failed.type, FrameType::kFailed);
  EXPECT_EQ(decode_failed(failed.payload)->code, Code::kDeadlineExceeded);
}

TEST_F(WorkerLinkTest, AnInterruptEndsAWaitAndNotTheCall) {
  // It answers the first call when the second frame has come.
  start(stand_in("head -c 32 <&3 >/dev/null; " + sends_frame(FrameType::kDone, 1, "{}") +
                 kStaysDeaf));
  const auto call = open(FrameType::kGenerate);
  const auto waiting = io_.begin(call->next(TimePoint::max()));
  io_.io.poll();
  EXPECT_FALSE(waiting->has_value());
  call->interrupt();
  ASSERT_TRUE(io_.run_until([&] { return waiting->has_value(); }));
  EXPECT_TRUE(std::holds_alternative<Interrupted>(**waiting));
  EXPECT_TRUE(std::holds_alternative<TimedOut>(io_.wait_for(call->next(io_.clock.now()))));
  const auto other = open(FrameType::kGenerate);
  EXPECT_EQ(next_frame(*call).type, FrameType::kDone);
}

#if defined(__linux__)
std::size_t open_descriptors() {
  const std::filesystem::directory_iterator entries("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

TEST_F(WorkerLinkTest, FiftyStartsLeaveNoDescriptorAndNoZombie) {
  start(stand_in("exit 0"));
  end();
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 50; ++i) {
    ends_.clear();
    start(stand_in(i % 2 == 0 ? "exit 0" : kStaysDeaf));
    if (i % 2 != 0) link_->kill(WorkerEnd::kKilledForMemory);
    EXPECT_EQ(end(), i % 2 == 0 ? WorkerEnd::kCrashed : WorkerEnd::kKilledForMemory);
  }
  link_.reset();
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}
#endif

}  // namespace
}  // namespace pensieve::worker
