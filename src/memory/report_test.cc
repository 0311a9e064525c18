#include "memory/report.h"

#include <gtest/gtest.h>

namespace pensieve::memory {
namespace {

// 12.34 GiB, rounded up to the byte.
constexpr Bytes k12_34(13249974109);

TEST(GbTextTest, HasTwoDecimals) {
  EXPECT_EQ(gb_text(Bytes()), "0.00");
  EXPECT_EQ(gb_text(768_MiB), "0.75");
  EXPECT_EQ(gb_text(16_GiB), "16.00");
  EXPECT_EQ(gb_text(k12_34), "12.34");
}

TEST(GbTextTest, RoundsDownSoThatAMissedFloorDoesNotLookReached) {
  EXPECT_EQ(gb_text(1_GiB), "1.00");
  EXPECT_EQ(gb_text(saturating_sub(1_GiB, Bytes(1))), "0.99");
  EXPECT_EQ(gb_text(saturating_sub(512_MiB, Bytes(1))), "0.49");
  EXPECT_EQ(gb_text(Bytes(1)), "0.00");
}

TEST(GbTextTest, TheLargestCountDoesNotOverflow) {
  EXPECT_EQ(gb_text(Bytes(UINT64_MAX)), "17179869183.99");
}

TEST(ReportTest, TheLinesAreExactlyThoseThatTheUserAskedFor) {
  EXPECT_EQ(report_line(Moment::kBefore, k12_34, 16_GiB),
            "[MEMORY BEFORE] Available: 12.34GB / 16.00GB (22.9% used)");
  EXPECT_EQ(report_line(Moment::kAfter, k12_34, 16_GiB),
            "[MEMORY AFTER] Available: 12.34GB / 16.00GB (22.9% used)");
}

TEST(ReportTest, AllUsedAndNothingUsedAreTold) {
  EXPECT_EQ(report_line(Moment::kAfter, Bytes(), 16_GiB),
            "[MEMORY AFTER] Available: 0.00GB / 16.00GB (100.0% used)");
  EXPECT_EQ(report_line(Moment::kAfter, 16_GiB, 16_GiB),
            "[MEMORY AFTER] Available: 16.00GB / 16.00GB (0.0% used)");
}

TEST(ReportTest, UnknownIsSaidAsUnknown) {
  const std::string unknown = "[MEMORY BEFORE] Available: unknown";
  EXPECT_EQ(report_line(Moment::kBefore, std::nullopt, std::nullopt), unknown);
  EXPECT_EQ(report_line(Moment::kBefore, 1_GiB, std::nullopt), unknown);
  EXPECT_EQ(report_line(Moment::kBefore, 1_GiB, Bytes()), unknown);
}

TEST(ReportTest, AReadingIsReportedOrTheReasonWhyThereIsNone) {
  EXPECT_EQ(report_line(Moment::kBefore, Reading{8_GiB, 16_GiB, "machine"}),
            "[MEMORY BEFORE] Available: 8.00GB / 16.00GB (50.0% used)");
  EXPECT_EQ(report_line(Moment::kAfter, fail(Code::kUnavailable, "cannot open it")),
            "[MEMORY AFTER] Available: unknown (cannot open it)");
}

}  // namespace
}  // namespace pensieve::memory
