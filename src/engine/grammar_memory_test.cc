// What grammars take, against the bounds of GrammarMemory: with a vocabulary as large as a real
// one.
#include "engine/grammar_memory.h"

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "engine/answer_grammar.h"
#include "engine/testing/byte_vocabulary.h"

namespace pensieve::engine {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Bytes, and words of three and four letters: 49,152 tokens.
const std::vector<std::string>& large_vocabulary() {
  static const std::vector<std::string> pieces = [] {
    std::vector<std::string> made = byte_pieces();
    for (std::size_t i = 0; made.size() < 49'152; ++i) {
      std::string word;
      for (std::size_t rest = i; word.size() < (i < 17'576 ? 3U : 4U); rest /= 26) {
        word += static_cast<char>('a' + rest % 26);
      }
      made.push_back(std::move(word));
    }
    return made;
  }();
  return pieces;
}

std::string text_of_at_most(int characters) {
  return fmt::format(R"({{"type":"string","maxLength":{}}})", characters);
}

/// An object with so many texts, each with a length of its own: nothing of them is shared.
std::string texts(int count, int length) {
  std::string properties;
  for (int i = 0; i < count; ++i) {
    properties += fmt::format(R"({}"t{}":{})", i > 0 ? "," : "", i, text_of_at_most(length + i));
  }
  return R"({"type":"object","additionalProperties":false,"properties":{)" + properties + "}}";
}

/// Each letter may belong to many parts of the pattern.
constexpr const char* kAmbiguous = R"({"type":"string","pattern":"^((a|b|ab|[a-z]{1,60})+,?)+$"})";

Prompt answering(std::string schema) {
  Prompt prompt;
  prompt.rules.json_schema = std::move(schema);
  return prompt;
}

class GrammarMemoryTest : public testing::Test {
 protected:
  using Compiled = Result<std::shared_ptr<const TokenGrammar>>;

  static std::string tag(const std::string& schema) {
    return structural_tag(answering(schema), plain_spelling(), schema_format);
  }
  static GrammarMemory little() {
    GrammarMemory memory = GrammarMemory::of(large_vocabulary().size());
    memory.kept = 8_MiB;
    memory.compiling = 1_MiB;
    memory.following = 1_MiB;
    memory.shared = 8_MiB;
    return memory;
  }
};

TEST_F(GrammarMemoryTest, APlanHasAllPartsAndGrowsWithVocabularyAndSequences) {
  const GrammarMemory small = GrammarMemory::of(49'152);
  EXPECT_GT(small.total(4), Bytes(small.kept.count() + small.shared.count()));
  EXPECT_LT(small.total(4), 256_MiB) << "a small model must fit a small machine";
  EXPECT_LT(small.total(4), small.total(5));
  EXPECT_LT(small.total(4), GrammarMemory::of(262'144).total(4));
}

TEST_F(GrammarMemoryTest, ASchemaThatTakesTooMuchEndsWithWordsAndIsNotTriedAgain) {
  GrammarCompiler compiler(large_vocabulary(), {kEnd}, little());
  int made = 0;
  const std::string heavy = tag(texts(30, 1000));
  const auto make = [&made, &heavy] {
    ++made;
    return heavy;
  };
  for (int time = 0; time < 3; ++time) {
    const Compiled grammar = compiler.compile("heavy", make, seconds(60));
    ASSERT_FALSE(grammar);
    EXPECT_EQ(grammar.error().code, Code::kOutOfMemory);
    EXPECT_EQ(grammar.error().message, "the schemas take too much memory to compile");
  }
  EXPECT_EQ(made, 1);
  EXPECT_TRUE(compiler.compile(tag(R"({"type":"integer"})"))) << "all that it took is back";
}

TEST_F(GrammarMemoryTest, WhereverMemoryEndsTheCompilerOnlyRefuses) {
  GrammarMemory memory = little();
  memory.shared = Bytes();
  const std::string asked =
      tag(R"({"type":"object","properties":{"a":{"type":"string","pattern":"^([a-z]{1,8}-)+$"},)"
          R"("c":{"type":"array","items":{"anyOf":[{"type":"integer"},{"const":"x y"}]},)"
          R"("maxItems":5}},"required":["a"]})");
  int refused = 0;
  bool is_compiled = false;
  // In small steps: it may end wherever xgrammar allocates, its error messages included.
  for (std::uint64_t bytes = 1'024; !is_compiled; bytes += 199) {
    memory.compiling = Bytes(bytes);
    GrammarCompiler compiler(byte_pieces(), {kEnd}, memory);
    const Compiled grammar = compiler.compile(asked);
    is_compiled = grammar.has_value();
    if (is_compiled) break;
    ++refused;
    ASSERT_EQ(grammar.error().code, Code::kOutOfMemory) << bytes << grammar.error().message;
  }
  EXPECT_GT(refused, 500);
}

TEST_F(GrammarMemoryTest, GrammarsInUseAreNotLetGoAndLeaveNoRoomForOthers) {
  GrammarCompiler compiler(large_vocabulary(), {kEnd}, little());
  std::vector<std::shared_ptr<const TokenGrammar>> used;
  Compiled grammar;
  for (int i = 0; i < 64; ++i) {
    grammar = compiler.compile(tag(texts(1, 20 + i)));
    if (!grammar) break;
    used.push_back(*grammar);
  }
  ASSERT_FALSE(grammar) << "64 grammars of about a megabyte fit 8";
  EXPECT_EQ(grammar.error().code, Code::kOutOfMemory);
  EXPECT_GT(used.size(), 3U);
  used.clear();
  EXPECT_TRUE(compiler.compile(tag(texts(1, 200))));
}

TEST_F(GrammarMemoryTest, WhatWasCompiledIsKeptByItsKey) {
  GrammarCompiler compiler(large_vocabulary(), {kEnd}, little());
  int made = 0;
  const auto make = [&made] {
    ++made;
    return tag(texts(1, 20));
  };
  const Compiled first = compiler.compile("a", make, seconds(60));
  const Compiled again = compiler.compile("a", make, seconds(60));
  ASSERT_TRUE(first && again);
  EXPECT_EQ(*first, *again);
  EXPECT_EQ(made, 1);
}

TEST_F(GrammarMemoryTest, OneThatIsSlowGoesOnAndASecondOneIsStopped) {
  GrammarCompiler compiler(large_vocabulary(), {kEnd});
  const std::string slow = tag(texts(1, 4'000));
  const std::string slow_too = tag(texts(1, 3'999));
  Compiled first = compiler.compile(
      "slow", [&slow] { return slow; }, milliseconds(1));
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().code, Code::kDeadlineExceeded);
  const Compiled second = compiler.compile(
      "slow too", [&slow_too] { return slow_too; }, milliseconds(1));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kDeadlineExceeded);
  EXPECT_TRUE(compiler.compile(tag(R"({"type":"integer"})"))) << "its place is free again";
  while (!first && first.error().code != Code::kOutOfMemory) {
    std::this_thread::yield();
    first = compiler.compile(
        "slow", [&slow] { return slow; }, seconds(60));
  }
  EXPECT_TRUE(first);
}

TEST_F(GrammarMemoryTest, AnAnswerThatTakesTooMuchToFollowGoesOnWithoutItsGrammar) {
  GrammarCompiler compiler(large_vocabulary(), {kEnd}, little());
  const Compiled grammar = compiler.compile(tag(kAmbiguous));
  ASSERT_TRUE(grammar) << grammar.error().message;
  TokenMatcher following(*grammar);
  EXPECT_TRUE(following.accept('"'));
  EXPECT_FALSE(following.accept('"')) << "it is followed";
  bool is_followed = true;
  for (int i = 0; i < 20'000 && is_followed; ++i) {
    ASSERT_TRUE(following.accept('a' + i % 7));
    std::vector<float> logits(large_vocabulary().size(), 1.0F);
    following.mask(logits);
    is_followed = std::any_of(logits.begin(), logits.end(), [](float x) { return x != 1.0F; });
  }
  EXPECT_FALSE(is_followed);
  EXPECT_TRUE(following.accept('{'));
  EXPECT_FALSE(following.finished());
  TokenMatcher next(*grammar);
  EXPECT_TRUE(next.accept('"'));
  EXPECT_FALSE(next.accept('{')) << "others are followed as before";
}

TEST_F(GrammarMemoryTest, WhereverMemoryEndsAnAnswerGoesOn) {
  GrammarMemory memory = little();
  memory.shared = Bytes();
  memory.compiling = 16_MiB;
  for (std::uint64_t kib = 1; kib < 4'000; kib += kib / 16 + 1) {
    memory.following = Bytes(kib << 10);
    GrammarCompiler compiler(byte_pieces(), {kEnd}, memory);
    const Compiled grammar = compiler.compile(tag(kAmbiguous));
    ASSERT_TRUE(grammar) << grammar.error().message;
    TokenMatcher following(*grammar);
    std::vector<float> logits(257);
    EXPECT_TRUE(following.accept('"'));
    for (int i = 0; i < 300; ++i) {
      EXPECT_TRUE(following.accept('a' + i % 7)) << kib;
      following.mask(logits);
    }
  }
}

TEST_F(GrammarMemoryTest, ATagThatIsTooLongIsRefusedInWords) {
  GrammarCompiler compiler(byte_pieces(), {kEnd});
  const Compiled grammar = compiler.compile(std::string(GrammarCompiler::kTagBytesMax + 1, ' '));
  ASSERT_FALSE(grammar);
  EXPECT_EQ(grammar.error().code, Code::kInvalidArgument);
  EXPECT_NE(grammar.error().message.find("4194304 bytes"), std::string::npos)
      << grammar.error().message;
}

TEST_F(GrammarMemoryTest, SchemasThatTakeTooMuchKeepTheirKindsAndNames) {
  AnswerGrammars grammars(large_vocabulary(), {kEnd}, little());
  const auto grammar = grammars.of(answering(texts(30, 1000)), plain_spelling());
  ASSERT_TRUE(grammar) << grammar.error().message;
  TokenMatcher following(*grammar);
  for (const char c : std::string(R"({"t0":"x)")) EXPECT_TRUE(following.accept(c)) << c;
  EXPECT_FALSE(TokenMatcher(*grammar).accept('['));
}

}  // namespace
}  // namespace pensieve::engine
