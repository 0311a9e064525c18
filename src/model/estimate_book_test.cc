#include "model/estimate_book.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>

#include "worker/testing/temp_folder.h"

namespace pensieve::model {
namespace {

engine::MemoryEstimate estimate() {
  return {.weights_mapped = 4_GiB,
          .weights_copied = Bytes(),
          .kv = 1_GiB,
          .compute = 300_MiB,
          .process = 100_MiB};
}

Run run(Bytes planned, Bytes peak, bool full = false) {
  return {.planned = planned,
          .peak = peak,
          .resident_peak = peak,
          .above = saturating_sub(peak, planned),
          .was_full = full};
}

TEST(EstimateTest, WhatARunTookAboveThePlanIsAddedWithAMargin) {
  const Experience known = learned(std::nullopt, run(1_GiB, 1184_MiB));
  const engine::MemoryEstimate better = corrected(estimate(), known);
  // 160 MiB above, 16 MiB and a sixteenth as margin.
  EXPECT_EQ(better.anonymous(), Bytes(estimate().anonymous().count() + (186_MiB).count()));
  EXPECT_EQ(better.weights_mapped, 4_GiB);
  EXPECT_EQ(better.kv, 1_GiB);
}

TEST(EstimateTest, ALeakRaisesAnEstimateToTwiceItselfAtMost) {
  const Experience known = learned(std::nullopt, run(1_GiB, 100_GiB));
  EXPECT_EQ(corrected(estimate(), known).anonymous(), Bytes(2 * estimate().anonymous().count()));
}

TEST(EstimateTest, APeakFadesByHalfWithEachRunThatStaysBelowIt) {
  Experience known = learned(std::nullopt, run(1_GiB, Bytes((1_GiB).count() + (400_MiB).count())));
  known = learned(known, run(1_GiB, 900_MiB));
  EXPECT_EQ(known.above, 200_MiB);
  known = learned(known, run(1_GiB, Bytes((1_GiB).count() + (150_MiB).count())));
  EXPECT_EQ(known.above, 150_MiB);
  EXPECT_EQ(known.runs, 3U);
}

TEST(EstimateTest, OnlyThreeFullRunsInARowLowerAnEstimate) {
  std::optional<Experience> known;
  for (int i = 0; i < 20; ++i) known = learned(known, run(1400_MiB, 700_MiB, false));
  EXPECT_EQ(corrected(estimate(), *known).total(), estimate().total());
  for (int i = 0; i < 2; ++i) known = learned(known, run(1400_MiB, 1350_MiB, true));
  EXPECT_EQ(corrected(estimate(), *known).total(), estimate().total());
  known = learned(known, run(1400_MiB, 1000_MiB, true));
  // 50 MiB were left at least; the margin takes them all at a peak of 1000 MiB.
  EXPECT_EQ(corrected(estimate(), *known).total(), estimate().total());
}

TEST(EstimateTest, WhatGrammarsMayTakeIsNeverLowered) {
  std::optional<Experience> known;
  for (int i = 0; i < 3; ++i) known = learned(known, run(1600_MiB, 1200_MiB, true));
  engine::MemoryEstimate with_grammars = estimate();
  with_grammars.grammars = 200_MiB;
  const engine::MemoryEstimate better = corrected(with_grammars, *known);
  EXPECT_EQ(better.grammars, 200_MiB);
  // 400 MiB were left at least: 200 of grammars, 116 as margin.
  EXPECT_EQ(saturating_sub(with_grammars.total(), better.total()), 84_MiB);
}

TEST(EstimateTest, ALoweredEstimateStaysAboveEachPeakAndItsMargin) {
  std::optional<Experience> known;
  for (const Bytes peak : {1240_MiB, 1260_MiB, 1200_MiB}) {
    known = learned(known, run(1424_MiB, peak, true));
  }
  const engine::MemoryEstimate better = corrected(estimate(), *known);
  EXPECT_LT(better.anonymous(), estimate().anonymous());
  EXPECT_GE(better.anonymous(), Bytes((1260_MiB).count() + correction_margin(1200_MiB).count()));
  EXPECT_EQ(better.kv, 1_GiB);
}

TEST(EstimateTest, AnEstimateLosesAQuarterOfItsUncertainPartsAtMost) {
  std::optional<Experience> known;
  for (int i = 0; i < 9; ++i) known = learned(known, run(1424_MiB, 10_MiB, true));
  EXPECT_EQ(saturating_sub(estimate().anonymous(), corrected(estimate(), *known).anonymous()),
            100_MiB);
}

TEST(EstimateTest, OneRunAboveEndsAllLowering) {
  std::optional<Experience> known;
  for (int i = 0; i < 9; ++i) known = learned(known, run(1424_MiB, 10_MiB, true));
  known = learned(known, run(1424_MiB, Bytes((1424_MiB).count() + 1), true));
  EXPECT_GT(corrected(estimate(), *known).anonymous(), estimate().anonymous());
  EXPECT_EQ(known->full_runs, 0U);
}

class EstimateBookTest : public testing::Test {
 protected:
  std::string path() const { return folder_.at("state/pensieve/estimates.json"); }
  std::string text() const {
    std::ifstream file(path());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void overwrite(const std::string& text) { std::ofstream(path()) << text; }

  worker::TempFolder folder_;
};

TEST_F(EstimateBookTest, WhatIsRememberedIsThereAfterARestart) {
  EstimateBook(path()).remember("m", learned(std::nullopt, run(1_GiB, 2_GiB, true)));
  const std::optional<Experience> found = EstimateBook(path()).find("m");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->above, 1_GiB);
  EXPECT_EQ(found->runs, 1U);
  EXPECT_EQ(found->last.peak, 2_GiB);
  EXPECT_EQ(found->last.planned, 1_GiB);
  EXPECT_TRUE(found->last.was_full);
  EXPECT_FALSE(EstimateBook(path()).find("n"));
}

TEST_F(EstimateBookTest, AFileThatMakesNoSenseIsIgnoredAndReplaced) {
  EstimateBook(path()).remember("m", learned(std::nullopt, run(1_GiB, 2_GiB)));
  const std::string good = text();
  const std::string bad[] = {"",
                             "{",
                             "[]",
                             good.substr(0, good.size() / 2),
                             R"({"version":2,"models":{}})",
                             R"({"version":1,"models":{"m":{}}})",
                             R"({"version":1,"models":{"m":{"runs":-1}}})",
                             good + std::string(EstimateBook::kFileBytesMax, ' ')};
  for (const std::string& content : bad) {
    overwrite(content);
    EstimateBook book(path());
    EXPECT_FALSE(book.find("m")) << content.substr(0, 60);
    book.remember("n", learned(std::nullopt, run(1_GiB, 2_GiB)));
    EXPECT_TRUE(EstimateBook(path()).find("n")) << content.substr(0, 60);
  }
}

TEST_F(EstimateBookTest, AnAbsurdFigureIsNoFigure) {
  EstimateBook(path()).remember("m", learned(std::nullopt, run(1_GiB, 2_GiB)));
  std::string content = text();
  const std::string figure = "\"above_bytes\":1073741824";
  ASSERT_NE(content.find(figure), std::string::npos) << content;
  content.replace(content.find(figure), figure.size(), "\"above_bytes\":9999999999999999999");
  overwrite(content);
  EXPECT_FALSE(EstimateBook(path()).find("m"));
}

TEST_F(EstimateBookTest, TheBookStaysSmallAndForgetsTheOldest) {
  EstimateBook book(path());
  for (std::size_t i = 0; i <= EstimateBook::kModelsMax; ++i) {
    book.remember("model " + std::to_string(i), {});
  }
  EXPECT_FALSE(book.find("model 0"));
  EXPECT_TRUE(book.find("model 1"));
  EXPECT_LT(std::filesystem::file_size(path()), EstimateBook::kFileBytesMax);
  book.remember(std::string(EstimateBook::kKeyBytesMax + 1, 'k'), {});
  EXPECT_TRUE(book.find("model 1"));
}

TEST_F(EstimateBookTest, APlaceThatCannotBeWrittenIsNoError) {
  const std::string file = folder_.write("file", "");
  EstimateBook book(file + "/estimates.json");
  book.remember("m", learned(std::nullopt, run(1_GiB, 2_GiB)));
  EXPECT_TRUE(book.find("m")) << "for as long as the program runs";
}

TEST_F(EstimateBookTest, AKeyIsOfTheFileItself) {
  const std::string model = folder_.write("m.gguf", "12345");
  const std::string key = estimate_key(model, "llama", 4, 512);
  EXPECT_EQ(key, estimate_key(model, "llama", 4, 512));
  EXPECT_NE(key, estimate_key(model, "llama", 8, 512));
  folder_.write("m.gguf", "123456");
  EXPECT_NE(key, estimate_key(model, "llama", 4, 512));
  EXPECT_EQ(estimate_key(folder_.at("none"), "llama", 4, 512), "");
}

}  // namespace
}  // namespace pensieve::model
