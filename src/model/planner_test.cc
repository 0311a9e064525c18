// With the real worker program and models of the scripted engine.
#include "model/planner.h"

#include <string>

#include <gtest/gtest.h>

#include "worker/testing/temp_folder.h"

namespace pensieve::model {
namespace {

class PlannerTest : public testing::Test {
 protected:
  /// 100 MiB of weights, 64 KiB a token, a window of 8192 tokens.
  PlannerTest() { write("weights_mib 100\nkv_kib_per_token 64\ncontext_tokens 8192\n"); }

  void write(const std::string& lines) {
    question.model = {"m", folder_.write("m.script", lines), "scripted"};
    question.worker_program = PENSIEVE_WORKER_PROGRAM;
    question.estimates_path = folder_.at("estimates.json");
  }
  PlanAnswer answer() {
    const auto answer = plan_model(question, steady_clock());
    EXPECT_TRUE(answer) << answer.error().message;
    return answer ? *answer : PlanAnswer();
  }
  Bytes total(std::uint32_t context) {
    PlanQuestion other = question;
    other.context_tokens = context;
    other.room_now = other.room_ever = std::nullopt;
    return plan_model(other, steady_clock())->plan.estimate.total();
  }

  worker::TempFolder folder_;
  PlanQuestion question;
};

TEST_F(PlannerTest, ThePlanIsOfTheWindowThatWasAskedFor) {
  question.context_tokens = 1024;
  const PlanAnswer planned = answer();
  EXPECT_EQ(planned.plan.context_tokens, 1024U);
  EXPECT_EQ(planned.plan.context_train_tokens, 8192U);
  EXPECT_EQ(planned.plan.estimate.kv, 64_MiB);
  EXPECT_FALSE(planned.largest_now);
  EXPECT_FALSE(planned.experience);
}

TEST_F(PlannerTest, WithoutAWishItIsTheOneThatAServerWouldTry) {
  EXPECT_EQ(answer().plan.context_tokens, 8192U);
}

TEST_F(PlannerTest, TheLargestWindowFitsAndTheNextStepDoesNot) {
  question.room_now = Bytes(total(2048).count() + 1000);
  question.room_ever = 100_GiB;
  const PlanAnswer planned = answer();
  EXPECT_EQ(planned.largest_now, 2048U);
  EXPECT_EQ(planned.largest_ever, 8192U);
  question.room_now = saturating_sub(total(2048), Bytes(1));
  EXPECT_EQ(answer().largest_now, 2048U - PlanAnswer::kWindowStep);
}

TEST_F(PlannerTest, WhereNothingFitsNothingIsNamed) {
  question.room_now = 1_MiB;
  EXPECT_EQ(answer().largest_now, 0U);
}

TEST_F(PlannerTest, WhatEarlierRunsTookIsInThePlan) {
  const Bytes plain = total(0);
  const model::Run run{.planned = 200_MiB,
                       .peak = 300_MiB,
                       .resident_peak = 300_MiB,
                       .above = 100_MiB,
                       .was_full = false};
  EstimateBook(question.estimates_path)
      .remember(estimate_key(question.model.path, "scripted", question.sequences_max,
                             Pool::kStepTokensMax),
                learned(std::nullopt, run));
  const PlanAnswer planned = answer();
  EXPECT_EQ(planned.raised, Bytes((100_MiB).count() + correction_margin(100_MiB).count()));
  EXPECT_EQ(planned.plan.estimate.total(), Bytes(plain.count() + planned.raised.count()));
  ASSERT_TRUE(planned.experience);
  EXPECT_EQ(planned.experience->last.peak, 300_MiB);
}

TEST_F(PlannerTest, AFileThatIsNoModelIsAFailureWithItsReason) {
  write("nonsense 1\n");
  const auto answer = plan_model(question, steady_clock());
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().message.find("nonsense"), std::string::npos) << answer.error().message;
}

TEST_F(PlannerTest, AMissingWorkerProgramIsAFailure) {
  question.worker_program = folder_.at("none");
  EXPECT_FALSE(plan_model(question, steady_clock()));
}

}  // namespace
}  // namespace pensieve::model
