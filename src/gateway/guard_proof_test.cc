#include "gateway/guard_proof.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace pensieve::gateway {
namespace {

bool all_passed(const std::vector<GuardProof>& proofs) {
  for (const GuardProof& proof : proofs) {
    EXPECT_TRUE(proof.passed) << proof.name << " (" << proof.detail << ")";
  }
  return std::all_of(proofs.begin(), proofs.end(), [](const GuardProof& p) { return p.passed; });
}

constexpr std::string_view kRefusal =
    "HTTP/1.1 503 Service Unavailable\r\nx-memory-status: Critical\r\n"
    "x-available-memory-gb: 0.75\r\n\r\n{\"error\":{\"type\":\"overloaded_error\"}}";

TEST(GuardProof, AllHoldWithTheDefaultFloors) {
  const std::vector<GuardProof> proofs = prove_guard({});
  EXPECT_TRUE(all_passed(proofs));
  std::vector<std::string> names;
  for (const GuardProof& proof : proofs) names.push_back(proof.name);
  EXPECT_EQ(names, (std::vector<std::string>{
                       "accepts at Safe", "accepts at Caution", "accepts at Warning",
                       "refuses at Critical", "refuses at Emergency",
                       "refuses where memory cannot be read", "accepts again after recovery"}));
}

TEST(GuardProof, AllHoldWithOddFloors) {
  EXPECT_TRUE(all_passed(prove_guard({Bytes(4), Bytes(3), Bytes(2), Bytes(1)})));
  EXPECT_TRUE(all_passed(prove_guard({Bytes(1ULL << 50), 3_GiB, 7_MiB, Bytes(1)})));
}

TEST(GuardProof, AGuardThatDoesNotAcceptWhereItShouldIsFound) {
  // Floors that no memory reaches: the simulated reading is absurd, and the guard refuses it.
  const std::vector<GuardProof> proofs = prove_guard(
      {Bytes(UINT64_MAX), Bytes(UINT64_MAX - 1), Bytes(UINT64_MAX - 2), Bytes(UINT64_MAX - 3)});
  ASSERT_FALSE(proofs.empty());
  EXPECT_EQ(proofs.front().name, "accepts at Safe");
  EXPECT_FALSE(proofs.front().passed);
  EXPECT_NE(proofs.front().detail.find("HTTP/1.1 503"), std::string::npos);
}

TEST(GuardProof, AGuardThatDoesNotRefuseWhereItShouldIsFound) {
  EXPECT_FALSE(shows_refusal("HTTP/1.1 400 Bad Request\r\n\r\n"));
  EXPECT_FALSE(shows_refusal("HTTP/1.1 200 OK\r\n\r\n"));
  EXPECT_FALSE(shows_refusal(""));
}

TEST(GuardProof, ARefusalCountsOnlyWithBothHeadersAndTheErrorType) {
  EXPECT_TRUE(shows_refusal(kRefusal));
  for (const std::string_view part :
       {"503", "x-memory-status", "x-available-memory-gb", "overloaded_error"}) {
    std::string without(kRefusal);
    without.replace(without.find(part), part.size(), "xxx");
    EXPECT_FALSE(shows_refusal(without)) << part;
  }
}

TEST(GuardProof, OnlyARequestThatGotAsFarAsItsBodyCountsAsAccepted) {
  EXPECT_TRUE(shows_acceptance("HTTP/1.1 400 Bad Request\r\n\r\n"));
  EXPECT_FALSE(shows_acceptance(kRefusal));
  EXPECT_FALSE(shows_acceptance("HTTP/1.1 500 Internal Server Error\r\n\r\n"));
  EXPECT_FALSE(shows_acceptance(""));
}

TEST(GuardProof, FailuresAreNamedAndNothingProvedIsOne) {
  EXPECT_EQ(failures_of({{"refuses at Critical", true, "503"}}), "");
  EXPECT_EQ(failures_of({{"accepts at Safe", false, "no answer"},
                         {"refuses at Critical", true, "503"},
                         {"refuses at Emergency", false, "400"}}),
            "accepts at Safe (no answer); refuses at Emergency (400)");
  EXPECT_EQ(failures_of({}), "nothing was proved");
}

}  // namespace
}  // namespace pensieve::gateway
