// What `pensieve plan` says of figures that it is given, and where it has them from.
#include "cli/plan.h"

#include <string>

#include <gtest/gtest.h>

#include "cli/commands.h"
#include "cli/testing/captured_console.h"
#include "cli/testing/fake_server.h"

namespace pensieve::cli {
namespace {

constexpr std::uint64_t kGib = 1ULL << 30;

/// 3 GiB on a machine of 16 GiB that has 8.
PlanReport report() {
  PlanReport report;
  report.model = "m";
  report.engine = "llama";
  report.context_tokens = 8192;
  report.context_train_tokens = 32768;
  report.parallel = 4;
  report.weights_mapped_bytes = 2 * kGib;
  report.kv_bytes = kGib / 2;
  report.process_bytes = kGib / 2;
  report.largest_now = 16384;
  report.largest_ever = 32768;
  report.memory = {.source = "this machine", .available = 8 * kGib, .total = 16 * kGib};
  report.memory.floor = kGib;
  return report;
}

TEST(PlanTest, ItFitsUpToTheFloorAndNotOneByteMore) {
  PlanReport at = report();
  at.memory.available = 4 * kGib;
  EXPECT_EQ(fit_of(at), Fit::kNow);
  at.memory.available = 4 * kGib - 1;
  EXPECT_EQ(fit_of(at), Fit::kNotNow);
  at.memory.total = 4 * kGib;
  EXPECT_EQ(fit_of(at), Fit::kNotNow);
  at.memory.total = 4 * kGib - 1;
  EXPECT_EQ(fit_of(at), Fit::kNever);
}

TEST(PlanTest, WhatIsPromisedToOthersIsNotThere) {
  PlanReport promised = report();
  promised.memory.outstanding = 4 * kGib;
  EXPECT_EQ(fit_of(promised), Fit::kNow);
  promised.memory.outstanding += 1;
  EXPECT_EQ(fit_of(promised), Fit::kNotNow);
}

TEST(PlanTest, AnIdleModelWouldMakeRoom) {
  PlanReport tight = report();
  tight.memory.available = 2 * kGib;
  tight.memory.idle_model = "other";
  tight.memory.idle_bytes = 2 * kGib;
  EXPECT_EQ(fit_of(tight), Fit::kAfterUnload);
  EXPECT_NE(plan_text(tight).find("once other (2.00 GB), which nobody uses, is unloaded"),
            std::string::npos)
      << plan_text(tight);
  tight.memory.idle_bytes = 2 * kGib - 1;
  EXPECT_EQ(fit_of(tight), Fit::kNotNow);
}

TEST(PlanTest, UnknownMemoryIsNeverAFit) {
  PlanReport unknown = report();
  unknown.memory.available.reset();
  EXPECT_EQ(fit_of(unknown), Fit::kUnknown);
  EXPECT_EQ(exit_code_of(fit_of(unknown)), ExitCode::kRefusedForMemory);
  EXPECT_NE(plan_json(unknown).find(R"("available_bytes":null)"), std::string::npos);
}

TEST(PlanTest, EachVerdictHasItsExitCode) {
  EXPECT_EQ(exit_code_of(Fit::kNow), ExitCode::kOk);
  EXPECT_EQ(exit_code_of(Fit::kAfterUnload), ExitCode::kOk);
  EXPECT_EQ(exit_code_of(Fit::kNotNow), ExitCode::kRefusedForMemory);
  EXPECT_EQ(exit_code_of(Fit::kNever), ExitCode::kDoesNotFit);
}

TEST(PlanTest, TheTableIsAlignedAndSaysAllParts) {
  PlanReport measured = report();
  measured.last_run = {.runs = 2,
                       .planned_bytes = kGib,
                       .peak_bytes = kGib / 2,
                       .resident_peak_bytes = 2 * kGib,
                       .was_full = true};
  measured.grammar_bytes = kGib / 4;
  EXPECT_EQ(plan_text(measured),
            "m (llama), window 8192 of 32768 tokens, 4 in parallel\n"
            "\n"
            "PART                    SIZE\n"
            "weights, mapped      2.00 GB\n"
            "weights, copied          0 B\n"
            "KV cache            512.0 MB\n"
            "compute buffers          0 B\n"
            "process and tokens  512.0 MB\n"
            "grammars            256.0 MB\n"
            "total                3.25 GB\n"
            "\n"
            "MEMORY OF this machine      SIZE\n"
            "available                8.00 GB\n"
            "promised, not yet taken      0 B\n"
            "kept free                1.00 GB\n"
            "room                     7.00 GB\n"
            "\n"
            "It fits now.\n"
            "Largest window now: 16384 tokens; with the machine to itself: 32768 tokens\n"
            "Measured in the last of 2 runs: 512.0 MB at most beside mapped weights, 50 % of the "
            "1.00 GB estimated, with a full cache; 2.00 GB resident\n");
}

TEST(PlanTest, AServerIsAskedForItsMemoryAndItsIdleModel) {
  FakeServer server({json_answer(
      200, R"({"models":[{"id":"loaded","state":"ready","requests_active":0,)"
           R"("memory_reserved_bytes":500}],"memory":{"available_bytes":9000,"total_bytes":null,)"
           R"("outstanding_bytes":300,"floor_bytes":100}})")});
  const std::optional<MemoryNow> memory = memory_of_server(server.endpoint());
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->source, server.endpoint().url());
  EXPECT_EQ(memory->room(), 8600U);
  EXPECT_EQ(memory->room_after_unload(), 9100U);
  EXPECT_EQ(memory->room_ever(), std::nullopt);
  EXPECT_EQ(memory->idle_model, "loaded");
}

TEST(PlanTest, AModelThatIsInUseIsNotUnloaded) {
  FakeServer server({json_answer(
      200, R"({"models":[{"id":"loaded","state":"ready","requests_active":1,)"
           R"("memory_reserved_bytes":500}],"memory":{"available_bytes":9000,"total_bytes":9999,)"
           R"("outstanding_bytes":300,"floor_bytes":100}})")});
  const std::optional<MemoryNow> memory = memory_of_server(server.endpoint());
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->idle_model, "");
}

TEST(PlanTest, WithoutAServerTheMachineIsTaken) {
  Endpoint closed;
  {
    FakeServer server({});
    closed = server.endpoint();
  }
  Hooks hooks;
  bool asked_server = true;
  hooks.plan = [&](const config::Settings& settings, const std::optional<MemoryNow>& server) {
    EXPECT_EQ(settings.model, "m");
    asked_server = server.has_value();
    return report();
  };
  config::Settings settings;
  settings.model = "m";
  CapturedConsole captured;
  EXPECT_EQ(show_plan(settings, closed, hooks, true, captured.console()), ExitCode::kOk);
  EXPECT_FALSE(asked_server);
  EXPECT_NE(captured.out.find(R"("fits":"now")"), std::string::npos) << captured.out;
}

TEST(PlanTest, WhatCannotBePlannedSaysWhy) {
  Hooks hooks;
  hooks.plan = [](const config::Settings&, const std::optional<MemoryNow>&) {
    return std::unexpected(PlanFailure{ExitCode::kModelUnavailable, "no such model"});
  };
  config::Settings settings;
  settings.port = 0;
  CapturedConsole captured;
  EXPECT_EQ(show_plan(settings, {}, hooks, false, captured.console()), ExitCode::kModelUnavailable);
  EXPECT_EQ(captured.err, "pensieve: no such model\n");
}

}  // namespace
}  // namespace pensieve::cli
