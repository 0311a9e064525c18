// The scripted engine through its interface: tokens, cells, time, memory and every way to fail.
// Sleeping goes to a recorder, so no test waits.
#include "engine/scripted_engine.h"

#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace pensieve::engine {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

class ScriptedEngineTest : public testing::Test {
 protected:
  ScriptedEngineTest() {
    std::string name = (std::filesystem::temp_directory_path() / "scripted-XXXXXX").string();
    PENSIEVE_CHECK(mkdtemp(name.data()) != nullptr);
    folder_ = name;
  }
  ~ScriptedEngineTest() override { std::filesystem::remove_all(folder_); }

  /// Writes the model file and sets options_ to it.
  void write_model(const std::string& lines) {
    options_.model_path = (folder_ / "model.script").string();
    std::ofstream(options_.model_path) << lines;
  }
  void load(const std::string& lines = "") {
    write_model(lines);
    const Result<ModelInfo> info = engine_->load(options_, [](float) {});
    ASSERT_TRUE(info) << info.error().message;
  }
  std::vector<Token> tokenize(const Prompt& prompt) {
    const Result<std::vector<Token>> tokens = engine_->tokenize(prompt);
    EXPECT_TRUE(tokens) << tokens.error().message;
    return tokens ? *tokens : std::vector<Token>();
  }
  std::vector<Token> ask(const std::string& text) {
    return tokenize({.messages = {{Role::kUser, text}}, .continues_last = false});
  }
  std::string text_of(std::span<const Token> tokens) {
    std::string text;
    for (Token token : tokens) engine_->append_piece(token, text);
    return text;
  }
  Result<Token> step(SequenceId sequence, std::vector<Token> tokens) {
    const StepInput input{sequence, tokens, true};
    std::vector<Token> sampled;
    if (Result<void> done = engine_->step({&input, 1}, sampled); !done) {
      return std::unexpected(done.error());
    }
    return sampled.at(0);
  }
  /// What `sequence` answers after `tokens`, at most 50 tokens of it.
  std::vector<Token> generate(SequenceId sequence, std::vector<Token> tokens) {
    std::vector<Token> answer;
    while (answer.size() < 50) {
      const Result<Token> token = step(sequence, tokens);
      EXPECT_TRUE(token) << token.error().message;
      if (!token || engine_->ends_generation(*token)) break;
      answer.push_back(*token);
      tokens = {*token};
    }
    return answer;
  }

  std::filesystem::path folder_;
  LoadOptions options_;
  Duration slept_{0};
  int ticks_ = 0;
  std::unique_ptr<Engine> engine_ =
      make_scripted_engine([this] { ++ticks_; }, [this](Duration d) { slept_ += d; });
};

TEST_F(ScriptedEngineTest, PlansFromTheModelFile) {
  write_model(
      "# a comment\nweights_mib 7   # another\n\nkv_kib_per_token 2\ncontext_tokens 1000\n");
  Result<Plan> plan = engine_->plan(options_);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->context_tokens, 1000U);
  EXPECT_EQ(plan->context_train_tokens, 1000U);
  EXPECT_EQ(plan->estimate.weights_copied, 7_MiB);
  EXPECT_EQ(plan->estimate.kv, Bytes(2000 << 10));
  EXPECT_EQ(plan->estimate.weights_mapped, Bytes());

  options_.context_tokens = 100;
  EXPECT_EQ(engine_->plan(options_)->context_tokens, 100U);
  options_.context_tokens = 1001;
  EXPECT_EQ(engine_->plan(options_)->context_tokens, 1000U);

  write_model("weights_mib 7\nplan_mib 300000\n");
  EXPECT_EQ(engine_->plan(options_)->estimate.total(), Bytes(300000ULL << 20));
}

TEST_F(ScriptedEngineTest, AModelForEmbeddingsGivesVectorsAndNoAnswers) {
  write_model("embedding_size 5\n");
  EXPECT_TRUE(engine_->load(options_, [](float) {})->capabilities.embeddings);
  const std::vector<Token> tokens = engine_->tokenize_text("one two").value();
  const std::vector<float> vector = engine_->embed(tokens).value();
  ASSERT_EQ(vector.size(), 5U);
  double square = 0;
  for (const float part : vector) square += static_cast<double>(part) * part;
  EXPECT_NEAR(square, 1, 1e-5);
  EXPECT_EQ(engine_->embed(tokens).value(), vector);
  EXPECT_NE(engine_->embed(engine_->tokenize_text("two one").value()).value(), vector);
  EXPECT_EQ(engine_->embed(std::vector<Token>{1}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(engine_->prepare({.messages = {{Role::kUser, "hi"}}}).error().code,
            Code::kInvalidArgument);
}

TEST_F(ScriptedEngineTest, AModelThatGeneratesTextGivesNoVectors) {
  load();
  EXPECT_EQ(engine_->tokenize_text("one").error().code, Code::kInvalidArgument);
  EXPECT_EQ(engine_->embed(ask("one")).error().code, Code::kInvalidArgument);
}

/// What the engine answers to a conversation that has come so far.
class ScriptedToolsTest : public ScriptedEngineTest {
 protected:
  ScriptedToolsTest() { load(); }
  std::string answer(std::vector<Message> messages) {
    const std::vector<Token> tokens = tokenize({.messages = std::move(messages)});
    engine_->keep_prefix(0, 0);
    return text_of(generate(0, tokens));
  }
  static Message called() {
    Message call{.role = Role::kAssistant};
    call.calls = {{"1", "f", "{}"}};
    return call;
  }
  const Message ask_{Role::kUser, "script: say a; then; say b; then; say c"};
};

TEST_F(ScriptedToolsTest, ResultsContinueTheScript) {
  EXPECT_EQ(answer({ask_}), "a");
  EXPECT_EQ(answer({ask_, called(), {Role::kTool, "ok"}}), "b");
  EXPECT_EQ(
      answer(
          {ask_, called(), {Role::kTool, "1"}, {Role::kTool, "2"}, called(), {Role::kTool, "3"}}),
      "c");
}

TEST_F(ScriptedToolsTest, WordsBesideAResultAreNoNewQuestion) {
  EXPECT_EQ(answer({ask_, called(), {Role::kTool, "ok"}, {Role::kUser, "a reminder"}}), "b");
  EXPECT_EQ(answer({ask_, called(), {Role::kTool, "ok"}, {Role::kSystem, "a reminder"}}), "b");
}

TEST_F(ScriptedToolsTest, ANewQuestionIsANewQuestion) {
  EXPECT_EQ(answer({ask_, {Role::kAssistant, "a"}, {Role::kUser, "script: say x; then; say y"}}),
            "x");
  EXPECT_EQ(answer({ask_, {Role::kAssistant, "a"}, {Role::kUser, "hi"}}), "You said: hi");
}

TEST_F(ScriptedEngineTest, RefusesAWrongModelFileWithFileAndLine) {
  for (const char* wrong :
       {"token_us 1\nspeed 3\n", "token_us 1\ntoken_us x\n", "token_us 1\ntoken_us -1\n",
        "token_us 1\ntoken_us\n", "token_us 1\ncontext_tokens 0\n", "token_us 1\ntoken_us 1 2\n"}) {
    write_model(wrong);
    const Result<Plan> plan = engine_->plan(options_);
    ASSERT_FALSE(plan) << wrong;
    EXPECT_EQ(plan.error().code, Code::kInvalidArgument);
    EXPECT_EQ(plan.error().message.rfind(options_.model_path + ":2: ", 0), 0U)
        << plan.error().message;
  }
  options_.model_path = (folder_ / "missing.script").string();
  EXPECT_EQ(engine_->plan(options_).error().code, Code::kNotFound);
}

TEST_F(ScriptedEngineTest, LoadsInItsTimeAndShowsProgress) {
  write_model("load_ms 500\nweights_mib 1\n");
  std::vector<float> progress;
  ASSERT_TRUE(engine_->load(options_, [&](float share) { progress.push_back(share); }));
  EXPECT_EQ(slept_, milliseconds(500));
  EXPECT_GE(ticks_, 25);
  EXPECT_EQ(progress.front(), 0.0F);
  EXPECT_EQ(progress.back(), 1.0F);
  EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));
}

TEST_F(ScriptedEngineTest, TokensKeepTheTextAndGrowWithIt) {
  load();
  const std::string text = "A line.\n\n  Another \xC3\xA9 line, <assistant> and all. ";
  const std::vector<Token> tokens = ask(text);
  EXPECT_EQ(text_of(tokens), text);
  EXPECT_EQ(tokens, ask(text));
  EXPECT_EQ(ask(text + "more").size(), tokens.size());  // "more" joins the last space.
  EXPECT_EQ(ask(text + "more and").size(), tokens.size() + 1);
}

TEST_F(ScriptedEngineTest, AnsweredTextIsTokenizedAsItWasGenerated) {
  load();
  const std::vector<Token> first = ask("script: say one two three");
  std::vector<Token> sequence = first;
  const std::vector<Token> answer = generate(0, first);
  sequence.insert(sequence.end(), answer.begin(), answer.end());
  const std::vector<Token> second =
      tokenize({.messages = {{Role::kUser, "script: say one two three"},
                             {Role::kAssistant, text_of(answer)},
                             {Role::kUser, "next"}},
                .continues_last = false});
  ASSERT_GT(second.size(), sequence.size());
  EXPECT_TRUE(std::equal(sequence.begin(), sequence.end(), second.begin()));
}

TEST_F(ScriptedEngineTest, AnswersTheLastUserMessageThroughSystemAndEarlierTurns) {
  load();
  const std::vector<Token> tokens = tokenize({.messages = {{Role::kSystem, "script: say no"},
                                                           {Role::kUser, "script: say nor"},
                                                           {Role::kAssistant, "nor"},
                                                           {Role::kUser, "script: say yes"},
                                                           {Role::kSystem, "late"}},
                                              .continues_last = false});
  EXPECT_EQ(text_of(generate(0, tokens)), "yes");
}

TEST_F(ScriptedEngineTest, AContinuedTurnIsPrefillAndNotAnswer) {
  load();
  const Prompt prompt{
      .messages = {{Role::kUser, "script: say one two"}, {Role::kAssistant, "some words before"}},
      .continues_last = true};
  EXPECT_EQ(text_of(generate(0, tokenize(prompt))), "one two");
  Prompt wrong = prompt;
  wrong.messages.pop_back();
  EXPECT_EQ(engine_->tokenize(wrong).error().code, Code::kInvalidArgument);
  EXPECT_EQ(engine_->tokenize({}).error().code, Code::kInvalidArgument);
}

TEST_F(ScriptedEngineTest, GoesOnWhereItStoodAfterItsTokensWereComputedAnew) {
  load();
  std::vector<Token> tokens = ask("script: say one two three four");
  const std::vector<Token> whole = generate(0, tokens);
  ASSERT_EQ(whole.size(), 4U);
  tokens.insert(tokens.end(), whole.begin(), whole.begin() + 2);
  EXPECT_EQ(text_of(generate(1, tokens)), " three four");
  EXPECT_EQ(engine_->keep_prefix(0, static_cast<std::uint32_t>(tokens.size() - 1)),
            tokens.size() - 1);
  EXPECT_EQ(text_of(generate(0, {tokens.back()})), " three four");
}

TEST_F(ScriptedEngineTest, SharedPrefixesCountOnce) {
  load("context_tokens 20\n");
  const std::vector<Token> tokens = ask("one two three four five six seven");  // 10 with markers.
  ASSERT_EQ(tokens.size(), 10U);
  ASSERT_TRUE(step(0, tokens));
  EXPECT_EQ(engine_->share_prefix(0, 1, 10), 10U);
  EXPECT_EQ(engine_->share_prefix(0, 2, 30), 10U);
  ASSERT_TRUE(step(3, tokens));
  EXPECT_EQ(step(0, {tokens.back()}).error().code, Code::kOutOfMemory);
  EXPECT_EQ(engine_->keep_prefix(0, 0), 0U);  // Two others still hold those cells.
  EXPECT_EQ(step(3, {tokens.back()}).error().code, Code::kOutOfMemory);
  EXPECT_EQ(engine_->keep_prefix(1, 9), 9U);
  EXPECT_EQ(engine_->keep_prefix(2, 9), 9U);
  EXPECT_TRUE(step(3, {tokens.back()}));
}

TEST_F(ScriptedEngineTest, WithoutFreeCellsNothingChanges) {
  load("context_tokens 5\n");
  const std::vector<Token> tokens = ask("script: say a b c");
  ASSERT_EQ(tokens.size(), 8U);
  EXPECT_EQ(step(0, tokens).error().code, Code::kOutOfMemory);
  EXPECT_EQ(engine_->keep_prefix(0, 99), 0U);
  const std::vector<Token> small(tokens.begin(), tokens.begin() + 5);
  EXPECT_TRUE(step(0, small));
  EXPECT_EQ(step(0, {tokens[5]}).error().code, Code::kOutOfMemory);
  EXPECT_EQ(engine_->keep_prefix(0, 99), 5U);
}

TEST_F(ScriptedEngineTest, PlansAndLoadsTheCellsOfTheOptionsBesideTheWindow) {
  write_model("kv_kib_per_token 2\ncontext_tokens 1000\n");
  options_.cells = 64;
  const Result<Plan> plan = engine_->plan(options_);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->context_tokens, 1000U);
  EXPECT_EQ(plan->cells, 64U);
  EXPECT_EQ(plan->estimate.kv, Bytes(64 * 2048));
  EXPECT_EQ(plan->resize_copy, Bytes(64 * 2048));
  const Result<ModelInfo> info = engine_->load(options_, [](float) {});
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->context_tokens, 1000U);
  EXPECT_EQ(info->cells, 64U);
  EXPECT_EQ(info->capabilities, Capabilities{.thinking = true});
  EXPECT_EQ(engine_->cells(), 64U);
}

TEST_F(ScriptedEngineTest, AResizeCarriesOverWhatIsHeldAndWhatIsShared) {
  options_.cells = 20;
  load();
  const std::vector<Token> tokens = ask("script: say a b c d e");  // 10 with markers.
  ASSERT_EQ(tokens.size(), 10U);
  const std::vector<Token> answer = generate(0, tokens);
  engine_->keep_prefix(0, 10);
  ASSERT_EQ(engine_->share_prefix(0, 1, 9), 9U);
  const std::vector<SequenceId> both = {0, 1};
  EXPECT_EQ(engine_->cells_used(both), 10U);
  EXPECT_EQ(engine_->cells_used({&both[1], 1}), 9U);
  for (const std::uint32_t cells : {40U, 10U, 30U}) {
    const Result<std::uint32_t> resized = engine_->resize(cells);
    ASSERT_TRUE(resized) << resized.error().message;
    EXPECT_EQ(*resized, cells);
    EXPECT_EQ(engine_->cells(), cells);
    EXPECT_EQ(engine_->cells_used(both), 10U) << "shared cells stay shared";
  }
  EXPECT_EQ(generate(1, {tokens.back()}), answer);
  EXPECT_EQ(engine_->keep_prefix(0, 99), 10U);
}

TEST_F(ScriptedEngineTest, AResizeBelowWhatIsHeldOrToNothingChangesNothing) {
  options_.cells = 20;
  load();
  const std::vector<Token> tokens = ask("script: say a b c");
  ASSERT_TRUE(step(0, tokens));
  EXPECT_EQ(engine_->resize(7).error().code, Code::kInvalidArgument);
  EXPECT_EQ(engine_->resize(0).error().code, Code::kInvalidArgument);
  EXPECT_EQ(engine_->cells(), 20U);
  EXPECT_EQ(engine_->keep_prefix(0, 99), 8U);
  EXPECT_TRUE(engine_->resize(8)) << "just as many as are held";
  EXPECT_EQ(step(0, {tokens[0]}).error().code, Code::kOutOfMemory);
}

TEST_F(ScriptedEngineTest, ASavedStateGoesOnInAnotherSequence) {
  options_.cells = 30;
  load();
  const std::vector<Token> tokens = ask("script: say a b c");
  ASSERT_TRUE(step(0, {tokens.begin(), tokens.end() - 1}));
  std::string state = "what was here before";
  ASSERT_TRUE(engine_->save_state(0, state));
  EXPECT_LE(state.size(), engine_->state_bytes(0).count());
  engine_->keep_prefix(0, 0);
  ASSERT_TRUE(engine_->restore_state(2, state, 7));
  EXPECT_EQ(text_of(generate(2, {tokens.back()})), "a b c");
  ASSERT_TRUE(engine_->save_state(1, state));
  EXPECT_EQ(state, "") << "of a sequence that holds nothing";
}

TEST_F(ScriptedEngineTest, AStateThatIsNoneOrDoesNotFitLeavesItsSequenceEmptyAndNoOther) {
  options_.cells = 16;
  load();
  const std::vector<Token> tokens = ask("script: say a b c");
  ASSERT_TRUE(step(0, tokens));
  std::string state;
  ASSERT_TRUE(engine_->save_state(0, state));
  const auto error_of = [&](std::string_view bytes, std::uint32_t count) {
    EXPECT_TRUE(engine_->restore_state(1, state, 8));
    const Result<void> restored = engine_->restore_state(1, bytes, count);
    EXPECT_FALSE(restored);
    EXPECT_EQ(engine_->keep_prefix(1, 99), 0U);
    EXPECT_EQ(engine_->keep_prefix(0, 99), 8U);
    return restored ? Code::kInternal : restored.error().code;
  };
  EXPECT_EQ(error_of(state, 7), Code::kInvalidArgument);
  EXPECT_EQ(error_of(state.substr(1), 8), Code::kInvalidArgument);
  EXPECT_EQ(error_of(std::string(32, '\xFF'), 8), Code::kInvalidArgument);
  EXPECT_EQ(error_of(std::string(32, '\x11'), 8), Code::kInvalidArgument);
  EXPECT_EQ(error_of(state + std::string(4, '\0'), 9), Code::kOutOfMemory);
}

TEST_F(ScriptedEngineTest, TwoSequencesInOneStepAnswerInTheOrderOfTheInputs) {
  load();
  const std::vector<Token> one = ask("script: say one");
  const std::vector<Token> two = ask("script: say two");
  const std::vector<Token> three = ask("script: say three");
  const std::vector<StepInput> inputs = {{2, two, true}, {1, three, false}, {0, one, true}};
  std::vector<Token> sampled;
  ASSERT_TRUE(engine_->step(inputs, sampled));
  ASSERT_EQ(sampled.size(), 2U);
  EXPECT_EQ(text_of({&sampled[0], 1}), "two");
  EXPECT_EQ(text_of({&sampled[1], 1}), "one");
}

TEST_F(ScriptedEngineTest, TakesItsTimePerTokenAndTicksMeanwhile) {
  load("prefill_us_per_token 100\ntoken_us 3000\n");
  const std::vector<Token> tokens = ask("script: say a; delay 60; say b; slow 200; say c");
  const Result<Token> first = step(0, tokens);
  EXPECT_EQ(slept_, microseconds(100) * static_cast<std::int64_t>(tokens.size()));
  slept_ = Duration(0);
  const Result<Token> second = step(0, {*first});
  EXPECT_EQ(slept_, milliseconds(60));
  slept_ = Duration(0);
  ticks_ = 0;
  ASSERT_TRUE(step(0, {*second}));
  EXPECT_EQ(slept_, milliseconds(260));
  EXPECT_GE(ticks_, 13);
}

TEST_F(ScriptedEngineTest, WhatGrewComesBackAndWhatLeakedDoesNot) {
  load();
  EXPECT_EQ(text_of(generate(0, ask("script: grow 3; leak 2; say a; grow 1"))), "a");
  EXPECT_EQ(engine_->clear_cache(), 4_MiB);
  EXPECT_EQ(engine_->clear_cache(), Bytes());
}

TEST_F(ScriptedEngineTest, FailAndBadAllocLeaveTheStep) {
  load();
  EXPECT_EQ(step(0, ask("script: fail")).error().code, Code::kInternal);
  EXPECT_THROW(static_cast<void>(step(1, ask("script: badalloc"))), std::bad_alloc);
}

TEST_F(ScriptedEngineTest, OnceHappensOnlyTheFirstTime) {
  load();
  const std::string path = (folder_ / "marker").string();
  const std::vector<Token> tokens = ask("script: once " + path + " fail; say fine");
  EXPECT_FALSE(step(0, tokens));
  EXPECT_TRUE(std::filesystem::exists(path));
  EXPECT_EQ(text_of(generate(1, tokens)), "fine");
  const std::vector<Token> lost = ask("script: once " + path + "/under/a/file fail; say fine");
  const Result<Token> error = step(2, lost);
  EXPECT_NE(error.error().message.find("under/a/file"), std::string::npos);
}

TEST_F(ScriptedEngineTest, HangNeverReturnsAndNeverTicks) {
  struct StillAsleep {};
  int hours = 0;
  int ticks = 0;
  engine_ = make_scripted_engine([&] { ++ticks; },
                                 [&](Duration) {
                                   if (++hours == 3) throw StillAsleep();
                                 });
  load();
  ticks = 0;
  EXPECT_THROW(static_cast<void>(step(0, ask("script: hang"))), StillAsleep);
  EXPECT_LE(ticks, 1);  // The step's own, before it hung.
}

using ScriptedEngineDeathTest = ScriptedEngineTest;

TEST_F(ScriptedEngineDeathTest, EndsTheProcessAsTold) {
  load();
  const std::vector<Token> aborts = ask("script: abort");
  const std::vector<Token> faults = ask("script: segv");
  const std::vector<Token> exits = ask("script: exit 42");
  EXPECT_EXIT(static_cast<void>(step(0, aborts)), testing::KilledBySignal(SIGABRT), "");
  EXPECT_EXIT(static_cast<void>(step(0, faults)), testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(static_cast<void>(step(0, exits)), testing::ExitedWithCode(42), "");
}

}  // namespace
}  // namespace pensieve::engine
