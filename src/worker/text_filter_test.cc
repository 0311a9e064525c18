#include "worker/text_filter.h"

#include <random>

#include <gtest/gtest.h>

namespace pensieve::worker {
namespace {

const std::string kReplaced = "\xEF\xBF\xBD";

std::string filtered(TextFilter& filter, const std::vector<std::string>& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += filter.push(piece);
  return text + filter.finish();
}

TEST(TextFilterTest, LetsPlainTextThroughAtOnce) {
  TextFilter filter({});
  EXPECT_EQ(filter.push("Hello"), "Hello");
  EXPECT_EQ(filter.push(""), "");
  EXPECT_EQ(filter.push(", w\xC3\xB6rld"), ", w\xC3\xB6rld");
  EXPECT_EQ(filter.finish(), "");
  EXPECT_FALSE(filter.met());
}

TEST(TextFilterTest, HoldsACharacterUntilItIsWhole) {
  TextFilter filter({});
  EXPECT_EQ(filter.push("a\xF0"), "a");
  EXPECT_EQ(filter.push("\x9F"), "");
  EXPECT_EQ(filter.push("\x98"), "");
  EXPECT_EQ(filter.push("\x80z"), "\xF0\x9F\x98\x80z");
}

TEST(TextFilterTest, AnUnfinishedCharacterAtTheEndIsReplaced) {
  TextFilter filter({});
  EXPECT_EQ(filter.push("a\xE2\x82"), "a");
  EXPECT_EQ(filter.finish(), kReplaced);
  EXPECT_EQ(filter.finish(), "");
}

TEST(TextFilterTest, BytesThatAreNoUtf8AreReplaced) {
  EXPECT_EQ(valid_utf8("a\xFFz"), "a" + kReplaced + "z");
  EXPECT_EQ(valid_utf8("\x80"), kReplaced) << "a continuation alone";
  EXPECT_EQ(valid_utf8("\xC3("), kReplaced + "(") << "the next character is not swallowed";
  EXPECT_EQ(valid_utf8("\xE2\x82(x"), kReplaced + "(x");
  EXPECT_EQ(valid_utf8("\xF5\x80\x80\x80"), kReplaced + kReplaced + kReplaced + kReplaced);
}

TEST(TextFilterTest, OverlongFormsSurrogatesAndTooLargeAreInvalid) {
  EXPECT_EQ(valid_utf8("\xC0\xAF"), kReplaced + kReplaced);
  EXPECT_EQ(valid_utf8("\xC1\xBF"), kReplaced + kReplaced);
  EXPECT_EQ(valid_utf8("\xE0\x9F\xBF"), kReplaced + kReplaced + kReplaced);
  EXPECT_EQ(valid_utf8("\xF0\x8F\xBF\xBF"), kReplaced + kReplaced + kReplaced + kReplaced);
  EXPECT_EQ(valid_utf8("\xED\xA0\x80"), kReplaced + kReplaced + kReplaced) << "U+D800";
  EXPECT_EQ(valid_utf8("\xF4\x90\x80\x80"), kReplaced + kReplaced + kReplaced + kReplaced);
}

TEST(TextFilterTest, TheEdgesOfWhatIsValidStay) {
  for (const std::string& valid :
       {std::string(1, '\0'), std::string("\x7F"), std::string("\xC2\x80"), std::string("\xDF\xBF"),
        std::string("\xE0\xA0\x80"), std::string("\xED\x9F\xBF"), std::string("\xEE\x80\x80"),
        std::string("\xEF\xBF\xBF"), std::string("\xF0\x90\x80\x80"),
        std::string("\xF4\x8F\xBF\xBF")}) {
    EXPECT_EQ(valid_utf8(valid), valid);
  }
}

TEST(TextFilterTest, AStopSequenceMayComeInManyPieces) {
  TextFilter filter({"</stop>"});
  EXPECT_EQ(filter.push("answer<"), "answer");
  EXPECT_EQ(filter.push("/st"), "");
  EXPECT_EQ(filter.push("op"), "");
  EXPECT_EQ(filter.push(">more"), "");
  EXPECT_EQ(filter.met(), "</stop>");
  EXPECT_EQ(filter.push("and more"), "");
  EXPECT_EQ(filter.finish(), "");
}

TEST(TextFilterTest, WhatOnlyBeganLikeAStopSequenceIsReleased) {
  TextFilter filter({"abac"});
  EXPECT_EQ(filter.push("aba"), "");
  EXPECT_EQ(filter.push("b"), "ab") << "the second ab may still begin one";
  EXPECT_EQ(filter.push("ac"), "");
  EXPECT_EQ(filter.met(), "abac");
}

TEST(TextFilterTest, APartialStopSequenceComesOutAtTheEnd) {
  TextFilter filter({"STOP"});
  EXPECT_EQ(filter.push("now ST"), "now ");
  EXPECT_EQ(filter.finish(), "ST");
  EXPECT_FALSE(filter.met());
}

TEST(TextFilterTest, OfTwoStopSequencesTheEarlierWins) {
  TextFilter filter({"second", "first"});
  EXPECT_EQ(filter.push("the first and the second"), "the ");
  EXPECT_EQ(filter.met(), "first");
}

TEST(TextFilterTest, OfTwoThatOverlapTheOneThatIsCompleteFirstWinsHoweverItArrives) {
  TextFilter at_once({"abcde", "bcd"});
  EXPECT_EQ(at_once.push("xabcdef"), "xa");
  EXPECT_EQ(at_once.met(), "bcd");
  TextFilter bytewise({"abcde", "bcd"});
  EXPECT_EQ(filtered(bytewise, {"x", "a", "b", "c", "d", "e", "f"}), "xa");
  EXPECT_EQ(bytewise.met(), "bcd");
}

TEST(TextFilterTest, OfTwoThatEndTogetherTheLongerWins) {
  TextFilter filter({"cd", "bcd"});
  EXPECT_EQ(filter.push("abcd"), "a");
  EXPECT_EQ(filter.met(), "bcd");
}

TEST(TextFilterTest, AStopSequenceAtTheVeryBeginningLeavesNothing) {
  TextFilter filter({"\n\n"});
  EXPECT_EQ(filter.push("\n"), "");
  EXPECT_EQ(filter.push("\nHello"), "");
  EXPECT_EQ(filter.met(), "\n\n");
}

TEST(TextFilterTest, ACharacterCutOffByAStopSequenceIsReplaced) {
  TextFilter filter({"STOP"});
  EXPECT_EQ(filter.push("a\xE2\x82"), "a");
  EXPECT_EQ(filter.push("STOP"), kReplaced);
  EXPECT_EQ(filter.met(), "STOP");
}

/// What must come out: the text before the stop sequence that is complete first (the longest of
/// those that end there), found by looking at every place.
struct Expected {
  std::string text;
  std::optional<std::string> met;
};
Expected expected_of(const std::string& text, const std::vector<std::string>& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::optional<std::string> met;
    for (const std::string& stop : stops) {
      const bool ends_here = text.substr(0, end).ends_with(stop);
      if (ends_here && (!met || stop.size() > met->size())) met = stop;
    }
    if (met) return {valid_utf8(text.substr(0, end - met->size())), met};
  }
  return {valid_utf8(text), std::nullopt};
}

TEST(TextFilterTest, WhateverTheChunkingTheTextIsThatBeforeTheFirstStop) {
  // Few letters, so that stop sequences and parts of them are frequent; some break UTF-8.
  const std::vector<std::string> letters = {
      "a",        "b",    "c",    "\xC3\xA9", "\xE2\x82\xAC",
      "\xE2\x82", "\xFF", "\xF0", "\x82",     "\xF0\x9F\x98\x80"};
  const std::vector<std::string> stop_letters = {"a", "b", "c", "\xC3\xA9", "\xE2\x82\xAC"};
  std::mt19937 random(20);
  const auto pick = [&](std::size_t count) {
    return std::uniform_int_distribution<std::size_t>(0, count - 1)(random);
  };
  int met = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (std::size_t i = pick(20); i > 0; --i) text += letters[pick(letters.size())];
    std::vector<std::string> stops(pick(4));
    for (std::string& stop : stops) {
      for (std::size_t i = pick(4) + 1; i > 0; --i) stop += stop_letters[pick(stop_letters.size())];
    }
    const Expected expected = expected_of(text, stops);
    if (expected.met) ++met;
    for (int chunking = 0; chunking < 4; ++chunking) {
      TextFilter filter(stops);
      std::string out;
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t size = chunking == 0 ? text.size() : pick(chunking * 2) + 1;
        const std::string piece = filter.push(std::string_view(text).substr(at, size));
        EXPECT_EQ(valid_utf8(piece), piece);
        out += piece;
        at += size;
      }
      out += filter.finish();
      ASSERT_EQ(out, expected.text) << "round " << round << ", chunking " << chunking;
      ASSERT_EQ(filter.met(), expected.met) << "round " << round << ", chunking " << chunking;
    }
  }
  EXPECT_GT(met, 500);
}

}  // namespace
}  // namespace pensieve::worker
