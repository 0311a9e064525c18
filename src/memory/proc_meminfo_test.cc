#include "memory/proc_meminfo.h"

#include <string_view>

#include <gtest/gtest.h>

#include "memory/testing/fake_kernel_files.h"

namespace pensieve::memory {
namespace {

constexpr std::string_view kGood =
    "MemTotal:       16384000 kB\n"
    "MemFree:          123456 kB\n"
    "MemAvailable:    8192000 kB\n"
    "Buffers:            1884 kB\n";

TEST(ParseMeminfoTest, ReadsAvailableAndTotalInUnitsOf1024Bytes) {
  const Result<Meminfo> meminfo = parse_meminfo(kGood);
  ASSERT_TRUE(meminfo.has_value());
  EXPECT_EQ(meminfo->available, Bytes(8192000ULL * 1024));
  EXPECT_EQ(meminfo->total, Bytes(16384000ULL * 1024));
}

TEST(ParseMeminfoTest, AnythingThatIsNotExactlyAFigureIsAnError) {
  const std::string_view nonsense[] = {
      "",
      "\n\n",
      "MemTotal: 100 kB\n",                                       // No MemAvailable.
      "MemAvailable: 100 kB\n",                                   // No MemTotal.
      "MemTotal: 100 kB\nMemAvailable:\n",                        // No figure.
      "MemTotal: 100 kB\nMemAvailable: -5 kB\n",                  // Negative.
      "MemTotal: 100 kB\nMemAvailable: 0x10 kB\n",                // Not decimal.
      "MemTotal: 100 kB\nMemAvailable: 10\n",                     // No unit.
      "MemTotal: 100 kB\nMemAvailable: 10 MB\n",                  // Another unit.
      "MemTotal: 100 kB\nMemAvailable: 10 kB kB\n",               // Trailing words.
      "MemTotal: 100 kB\nMemAvailable: 10 kB",                    // Cut short.
      "MemTotal: 100 kB\nMemAvailable: 10",                       // Cut shorter.
      "MemTotal: 18014398509481984 kB\nMemAvailable: 10 kB\n",    // 2^64 bytes.
      "MemTotal: 99999999999999999999 kB\nMemAvailable: 1 kB\n",  // No 64-bit number.
      "MemTotal: 0 kB\nMemAvailable: 0 kB\n",                     // A machine without memory.
      "MemTotal: 100 kB\nMemAvailable: 101 kB\n",                 // More than there is.
  };
  for (const std::string_view text : nonsense) {
    const Result<Meminfo> meminfo = parse_meminfo(text);
    ASSERT_FALSE(meminfo.has_value()) << text;
    EXPECT_EQ(meminfo.error().code, Code::kUnavailable) << text;
  }
}

TEST(ParseMeminfoTest, TheEdgesOfTheRangeAreFigures) {
  EXPECT_TRUE(parse_meminfo("MemTotal: 100 kB\nMemAvailable: 100 kB\n").has_value());
  EXPECT_TRUE(parse_meminfo("MemTotal: 100 kB\nMemAvailable: 0 kB\n").has_value());
  EXPECT_TRUE(parse_meminfo("MemTotal: 18014398509481983 kB\nMemAvailable: 1 kB\n").has_value());
}

TEST(ProcMeminfoTest, EachReadLooksAnew) {
  FakeKernelFiles files;
  files.write("meminfo", kGood);
  const auto meter = *ProcMeminfo::open(files.at("meminfo"));
  EXPECT_EQ(meter->read()->value().available, Bytes(8192000ULL * 1024));
  EXPECT_EQ(meter->read()->value().limited_by, "machine");
  files.write("meminfo", "MemTotal: 200 kB\nMemAvailable: 100 kB\n");
  EXPECT_EQ(meter->read()->value().available, Bytes(100 * 1024));
  EXPECT_EQ(meter->read()->value().total, Bytes(200 * 1024));
}

TEST(ProcMeminfoTest, ABadReadIsAnErrorAndTheNextGoodOneIsNot) {
  FakeKernelFiles files;
  files.write("meminfo", "");
  const auto meter = *ProcMeminfo::open(files.at("meminfo"));
  EXPECT_FALSE(meter->read().has_value());
  files.write("meminfo", kGood);
  EXPECT_TRUE(meter->read().has_value());
}

TEST(ProcMeminfoTest, AnAbsentFileCannotBeOpened) {
  const FakeKernelFiles files;
  EXPECT_FALSE(ProcMeminfo::open(files.at("meminfo")).has_value());
}

}  // namespace
}  // namespace pensieve::memory
