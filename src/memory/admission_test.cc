#include "memory/admission.h"

#include <gtest/gtest.h>

#include "base/testing/fake_clock.h"
#include "memory/testing/fake_memory_source.h"

namespace pensieve::memory {
namespace {

using std::chrono::seconds;

class AdmissionTest : public testing::Test {
 protected:
  /// The decision on a server that has read `available`, and nothing else before.
  Admission decide_at(Bytes available) {
    source_.set_available(available);
    Monitor fresh(source_, clock_, Monitor::Options());
    fresh.sample();
    return decide(fresh.status());
  }

  FakeClock clock_;
  FakeMemorySource source_;
  Monitor monitor_{source_, clock_, Monitor::Options()};
};

bool admits(const Admission& admission) {
  return std::holds_alternative<Admit>(admission);
}

Bytes one_less(Bytes bytes) {
  return saturating_sub(bytes, Bytes(1));
}

TEST_F(AdmissionTest, AcceptsAtSafeCautionAndWarning) {
  EXPECT_TRUE(admits(decide_at(3_GiB)));
  EXPECT_TRUE(admits(decide_at(2_GiB)));
  EXPECT_TRUE(admits(decide_at(1_GiB))) << "exactly the critical floor";
}

TEST_F(AdmissionTest, WarnsAtWarningOnly) {
  EXPECT_FALSE(std::get<Admit>(decide_at(3_GiB)).warn);
  EXPECT_FALSE(std::get<Admit>(decide_at(2_GiB)).warn);
  EXPECT_TRUE(std::get<Admit>(decide_at(one_less(2_GiB))).warn);
  EXPECT_TRUE(std::get<Admit>(decide_at(1_GiB)).warn);
}

TEST_F(AdmissionTest, RejectsAtCriticalWithTheNumbers) {
  const Refuse refuse = std::get<Refuse>(decide_at(768_MiB));
  EXPECT_EQ(refuse.level, Level::kCritical);
  EXPECT_EQ(refuse.available, 768_MiB);
  EXPECT_EQ(refuse.reason, "Server is under critical memory pressure: 0.75GB available");
}

TEST_F(AdmissionTest, RejectsAtEmergencyWithTheNumbers) {
  const Refuse refuse = std::get<Refuse>(decide_at(256_MiB));
  EXPECT_EQ(refuse.level, Level::kEmergency);
  EXPECT_EQ(refuse.reason, "Server is under emergency memory pressure: 0.25GB available");
}

TEST_F(AdmissionTest, TheFigureInARefusalNeverReachesTheFloorThatWasMissed) {
  EXPECT_EQ(std::get<Refuse>(decide_at(one_less(1_GiB))).reason,
            "Server is under critical memory pressure: 0.99GB available");
}

TEST_F(AdmissionTest, RejectsWhereTheAvailableMemoryIsNotKnown) {
  const Refuse refuse = std::get<Refuse>(decide(monitor_.status()));
  EXPECT_EQ(refuse.level, kLevelWhenUnknown);
  EXPECT_EQ(refuse.available, std::nullopt);
  EXPECT_EQ(refuse.reason,
            "Server cannot read its available memory and takes no new work until it can");
}

TEST_F(AdmissionTest, RejectsTheUnknownWhateverTheLevelSays) {
  Monitor::Status status;
  status.level = Level::kSafe;
  EXPECT_FALSE(admits(decide(status)));
}

TEST_F(AdmissionTest, AcceptsAgainAfterRecovery) {
  source_.set_available(700_MiB);
  monitor_.sample();
  EXPECT_FALSE(admits(decide(monitor_.status())));
  source_.set_available(8_GiB);
  monitor_.sample();
  const Refuse held = std::get<Refuse>(decide(monitor_.status()));
  EXPECT_EQ(held.reason, "Server is under critical memory pressure: 8.00GB available, recovering");
  EXPECT_EQ(held.retry_after, seconds(1));
  clock_.advance(seconds(1));
  monitor_.sample();
  EXPECT_TRUE(admits(decide(monitor_.status())));
}

TEST_F(AdmissionTest, RetryAfterIsWithinWhatClientsHeed) {
  const Admission refusals[] = {decide_at(700_MiB), decide_at(Bytes()), decide(monitor_.status())};
  for (const Admission& refusal : refusals) {
    EXPECT_GE(std::get<Refuse>(refusal).retry_after, seconds(1));
    EXPECT_LE(std::get<Refuse>(refusal).retry_after, seconds(60));
  }
  EXPECT_GT(std::get<Refuse>(refusals[1]).retry_after, std::get<Refuse>(refusals[0]).retry_after)
      << "an emergency takes longer to pass";
}

TEST_F(AdmissionTest, TheHeadersSayTheLevelAndTheAvailableMemory) {
  source_.set_available(768_MiB);
  monitor_.sample();
  EXPECT_EQ(memory_status_header(monitor_.status()), "Critical");
  EXPECT_EQ(available_memory_header(monitor_.status()), "0.75");
}

TEST_F(AdmissionTest, TheHeadersSayWhereNothingIsKnown) {
  EXPECT_EQ(memory_status_header(monitor_.status()), "Critical");
  EXPECT_EQ(available_memory_header(monitor_.status()), "unknown");
}

}  // namespace
}  // namespace pensieve::memory
