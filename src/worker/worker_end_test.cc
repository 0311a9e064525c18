#include "worker/worker_end.h"

#include <csignal>
#include <set>
#include <string>

#include <gtest/gtest.h>

namespace pensieve::worker {
namespace {

// As waitpid() reports them (Linux, macOS): the exit code in the second byte, else the signal.
int exited(int code) {
  return code << 8;
}
int signalled(int signal) {
  return signal;
}
int signalled_with_core(int signal) {
  return signal | 0x80;
}

WorkerEnd end_of(int status, bool stop_requested = false, bool by_kernel = false,
                 std::optional<WorkerEnd> verdict = std::nullopt) {
  return classify({status, stop_requested, by_kernel, verdict});
}

TEST(WorkerEndTest, OnlyAStopThatWasAskedForIsClean) {
  EXPECT_EQ(end_of(exited(0), true), WorkerEnd::kClean);
  EXPECT_EQ(end_of(exited(0), false), WorkerEnd::kCrashed);
  EXPECT_EQ(end_of(exited(1), true), WorkerEnd::kCrashed);
}

TEST(WorkerEndTest, ItsOwnFailedAllocationHasItsOwnExitCode) {
  EXPECT_EQ(end_of(exited(kExitOutOfMemory)), WorkerEnd::kOutOfMemory);
  EXPECT_EQ(end_of(exited(kExitOutOfMemory), true), WorkerEnd::kOutOfMemory);
  EXPECT_EQ(end_of(exited(kExitOutOfMemory - 1)), WorkerEnd::kCrashed);
  EXPECT_EQ(end_of(exited(kExitEngineFailure)), WorkerEnd::kCrashed);
  EXPECT_EQ(end_of(exited(kExitBadUsage)), WorkerEnd::kCrashed);
}

TEST(WorkerEndTest, SigkillIsTheKernelsExactlyWhenItsCounterMoved) {
  EXPECT_EQ(end_of(signalled(SIGKILL), false, true), WorkerEnd::kKilledByKernel);
  EXPECT_EQ(end_of(signalled(SIGKILL), false, false), WorkerEnd::kKilled);
  EXPECT_EQ(end_of(signalled(SIGKILL), true, false), WorkerEnd::kKilled);
}

TEST(WorkerEndTest, OtherSignalsAreCrashesWhateverTheKernelCounted) {
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTERM, SIGHUP}) {
    EXPECT_EQ(end_of(signalled(signal)), WorkerEnd::kCrashed);
    EXPECT_EQ(end_of(signalled_with_core(signal)), WorkerEnd::kCrashed);
    EXPECT_EQ(end_of(signalled(signal), true, true), WorkerEnd::kCrashed);
  }
}

TEST(WorkerEndTest, AnExitIsNeverTheKernelsDoing) {
  EXPECT_EQ(end_of(exited(0), true, true), WorkerEnd::kClean);
  EXPECT_EQ(end_of(exited(1), false, true), WorkerEnd::kCrashed);
}

TEST(WorkerEndTest, OurOwnVerdictComesBeforeAllElse) {
  for (const WorkerEnd verdict : {WorkerEnd::kKilledForMemory, WorkerEnd::kDeadline,
                                  WorkerEnd::kProtocolError, WorkerEnd::kKilled}) {
    EXPECT_EQ(end_of(signalled(SIGKILL), false, false, verdict), verdict);
    EXPECT_EQ(end_of(signalled(SIGKILL), true, true, verdict), verdict);
    EXPECT_EQ(end_of(exited(0), true, false, verdict), verdict);
    EXPECT_EQ(end_of(exited(kExitOutOfMemory), false, false, verdict), verdict);
    EXPECT_EQ(end_of(signalled(SIGABRT), false, false, verdict), verdict);
  }
}

TEST(WorkerEndTest, EachEndHasANameOfItsOwn) {
  std::set<std::string> names;
  for (int end = 0; end <= static_cast<int>(WorkerEnd::kProtocolError); ++end) {
    names.insert(std::string(name(static_cast<WorkerEnd>(end))));
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(WorkerEnd::kProtocolError) + 1);
  EXPECT_EQ(name(WorkerEnd::kKilledByKernel), "killed_by_kernel");
}

TEST(WorkerEndTest, TheDescriptionSaysHow) {
  EXPECT_EQ(describe(WorkerEnd::kClean, exited(0)), "clean (exit code 0)");
  EXPECT_EQ(describe(WorkerEnd::kOutOfMemory, exited(91)), "out_of_memory (exit code 91)");
  EXPECT_EQ(describe(WorkerEnd::kKilledByKernel, signalled(SIGKILL)),
            "killed_by_kernel (signal 9, Killed)");
}

}  // namespace
}  // namespace pensieve::worker
