// Changing the number of KV cells of a real model, and saving what a sequence holds: the tokens
// that follow are the same, shared cells stay shared, and memory really comes back.
#include <sys/resource.h>

#include <chrono>

#include "base/clock.h"
#include "engine/testing/llama_fixture.h"

namespace pensieve::engine {
namespace {

/// While it lives, this process gets at most `more` bytes of address space beyond what it has.
class AddressSpaceLimit {
 public:
  explicit AddressSpaceLimit(Bytes more) {
    ::getrlimit(RLIMIT_AS, &before_);
    std::ifstream file("/proc/self/statm");
    std::uint64_t pages = 0;
    file >> pages;
    rlimit limit = before_;
    limit.rlim_cur = pages * 4096 + more.count();
    EXPECT_EQ(::setrlimit(RLIMIT_AS, &limit), 0);
  }
  ~AddressSpaceLimit() { ::setrlimit(RLIMIT_AS, &before_); }
  AddressSpaceLimit(const AddressSpaceLimit&) = delete;
  AddressSpaceLimit& operator=(const AddressSpaceLimit&) = delete;

 private:
  rlimit before_{};
};

/// Loaded with 512 cells for a window of 1,024; each test begins with that.
class LlamaResizeTest : public LlamaEngineTest {
 protected:
  void SetUp() override {
    if (engine_ == nullptr) {
      LoadOptions options = small_options();
      options.cells = 512;
      engine_ = loaded(options);
    }
    LlamaEngineTest::SetUp();
    if (engine_ == nullptr) return;
    ASSERT_EQ(engine_->resize(512), 512U);
  }
  static std::uint32_t used() { return engine_->cells() - engine_->cells_free(); }
  static void resize(std::uint32_t cells) {
    const Result<std::uint32_t> resized = engine_->resize(cells);
    ASSERT_TRUE(resized) << resized.error().message;
    EXPECT_EQ(*resized, cells);
    EXPECT_EQ(engine_->cells(), cells);
  }
  static std::vector<Token> go_on(SequenceId sequence, std::vector<Token> tokens, int count) {
    const std::vector<Token> more = decode(sequence, tokens.back(), count + 1);
    tokens.insert(tokens.end(), more.begin() + 1, more.end());
    return tokens;
  }
};

TEST_F(LlamaResizeTest, CellsAreWhatWasAskedForAndTheWindowStays) {
  LoadOptions options = small_options();
  options.cells = 512;
  const Result<Plan> small = engine_->plan(options);
  ASSERT_TRUE(small) << small.error().message;
  EXPECT_EQ(small->context_tokens, 1024U);
  EXPECT_EQ(small->cells, 512U);
  options.cells = 2048;
  const Result<Plan> large = engine_->plan(options);
  ASSERT_TRUE(large) << large.error().message;
  EXPECT_EQ(large->context_tokens, 1024U);
  EXPECT_EQ(large->cells, 2048U);
  EXPECT_EQ(large->estimate.kv.count(), 4 * small->estimate.kv.count());
  EXPECT_EQ(engine_->cells(), 512U);
  EXPECT_EQ(engine_->resize(513), 768U) << "llama.cpp rounds up to multiples of 256";
  EXPECT_EQ(engine_->cells(), 768U);
}

TEST_F(LlamaResizeTest, GrowingAndShrinkingChangeNoToken) {
  const std::vector<Token> tokens = prompt(200);
  const std::vector<Token> undisturbed = go_on(0, {prefill(0, tokens)}, 30);
  engine_->keep_prefix(0, 0);
  std::vector<Token> line = go_on(0, {prefill(0, tokens)}, 10);
  resize(1024);
  line = go_on(0, line, 10);
  resize(256);
  line = go_on(0, line, 10);
  EXPECT_EQ(line, undisturbed);
  EXPECT_EQ(used(), 230U);
}

TEST_F(LlamaResizeTest, SharedCellsStayShared) {
  const std::vector<Token> tokens = prompt(200);
  const Token first = prefill(0, tokens);
  ASSERT_EQ(engine_->share_prefix(0, 1, 2 * kChunk), 2 * kChunk);
  const Token second = prefill(1, std::span(tokens).subspan(2 * kChunk));
  EXPECT_EQ(first, second);
  const std::uint32_t cells = 200 + 200 - 2 * kChunk;
  ASSERT_EQ(used(), cells);
  resize(768);
  resize(512);
  EXPECT_EQ(used(), cells);
  // llama.cpp agrees: what is left over really has room.
  prefill(2, prompt(512 - cells, "stone"));
  EXPECT_EQ(step(2, tokens[0]).error().code, Code::kOutOfMemory);
  engine_->keep_prefix(2, 0);
  EXPECT_EQ(decode(0, first), decode(1, second));
}

TEST_F(LlamaResizeTest, BelowWhatIsHeldNothingChanges) {
  const std::vector<Token> tokens = prompt(300);
  const Token first = prefill(0, tokens);
  EXPECT_EQ(engine_->resize(299).error().code, Code::kInvalidArgument);
  EXPECT_EQ(engine_->resize(0).error().code, Code::kInvalidArgument);
  EXPECT_EQ(engine_->resize(UINT32_MAX).error().code, Code::kInvalidArgument);
  EXPECT_EQ(engine_->cells(), 512U);
  EXPECT_EQ(engine_->keep_prefix(0, 9999), 300U);
  EXPECT_EQ(decode(0, first).size(), 16U);
}

TEST_F(LlamaResizeTest, WithoutMemoryForTheLargerCacheTheOldOneComesBack) {
  const std::vector<Token> tokens = prompt(200);
  const std::vector<Token> undisturbed = decode(0, prefill(0, tokens));
  engine_->keep_prefix(0, 0);
  const Token first = prefill(0, tokens);
  {
    const AddressSpaceLimit limit(256_MiB);
    const Result<std::uint32_t> resized = engine_->resize(65536);  // 1.5 GB.
    ASSERT_FALSE(resized);
    EXPECT_EQ(resized.error().code, Code::kOutOfMemory) << resized.error().message;
  }
  EXPECT_EQ(engine_->cells(), 512U);
  EXPECT_EQ(engine_->keep_prefix(0, 9999), 200U);
  EXPECT_EQ(decode(0, first), undisturbed);
  resize(1024);
  EXPECT_EQ(engine_->keep_prefix(0, 9999), 215U);
}

TEST_F(LlamaResizeTest, MemoryReallyComesBackAndTheCopyIsWithinItsBound) {
  const std::vector<Token> tokens = prompt(450);
  prefill(0, tokens);
  engine_->clear_cache();  // What the load has left would hide what a change of size leaves.
  const Bytes before = resident();
  const auto began = steady_clock().now();
  resize(8192);
  const auto grown = steady_clock().now();
  const Bytes large = resident();
  resize(512);
  const auto shrunk = steady_clock().now();
  const Bytes after = resident();
  EXPECT_GT(saturating_sub(large, before), 150_MiB) << "7,680 cells of 23 KB";
  EXPECT_LT(saturating_sub(after, before), 8_MiB);
  EXPECT_EQ(engine_->keep_prefix(0, 9999), 450U);
  const auto ms = [](auto from, auto to) {
    return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(to - from).count());
  };
  RecordProperty("grow_ms", ms(began, grown));
  RecordProperty("shrink_ms", ms(grown, shrunk));

  LoadOptions options = small_options();
  options.cells = 512;
  const Result<Plan> plan = engine_->plan(options);
  ASSERT_TRUE(plan);
  prefill(1, prompt(62, "stone"));
  ASSERT_EQ(engine_->cells_free(), 0U);
  EXPECT_LE(engine_->state_bytes(0).count() + engine_->state_bytes(1).count(),
            plan->resize_copy.count());
}

TEST_F(LlamaResizeTest, ReleasedBuffersAreTakenAgainInTheNewSize) {
  const std::vector<Token> tokens = prompt(100);
  const std::vector<Token> undisturbed = decode(0, prefill(0, tokens));
  engine_->keep_prefix(0, 0);
  engine_->release_buffers();
  resize(256);
  EXPECT_EQ(decode(0, prefill(0, tokens)), undisturbed);
  EXPECT_EQ(engine_->cells_free(), 256U - 115U);
}

TEST_F(LlamaResizeTest, ASavedStateGoesOnInAnotherSequenceAndInAnotherEngine) {
  const std::vector<Token> tokens = prompt(200);
  const Token first = prefill(0, tokens);
  std::string state = "what was here before";
  const Result<void> saved = engine_->save_state(0, state);
  ASSERT_TRUE(saved) << saved.error().message;
  EXPECT_EQ(Bytes(state.size()), engine_->state_bytes(0));
  const std::vector<Token> undisturbed = decode(0, first);
  engine_->keep_prefix(0, 0);
  const Result<void> restored = engine_->restore_state(2, state, 200);
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(used(), 200U);
  EXPECT_EQ(decode(2, first), undisturbed);
  EXPECT_EQ(engine_->keep_prefix(2, 2 * kChunk), 2 * kChunk) << "its parts can be re-used as ever";

  const std::string format = engine_->state_format();
  engine_.reset();
  engine_ = loaded(small_options());  // As another process would.
  ASSERT_NE(engine_, nullptr);
  EXPECT_EQ(engine_->state_format(), format);
  greedy(1);
  ASSERT_TRUE(engine_->restore_state(1, state, 200));
  EXPECT_EQ(decode(1, first), undisturbed);
  ASSERT_TRUE(engine_->save_state(0, state));
  EXPECT_EQ(state, "") << "of a sequence that holds nothing";
  engine_.reset();
}

TEST_F(LlamaResizeTest, AStateThatIsNoneOrDoesNotFitLeavesItsSequenceEmptyAndNoOther) {
  const std::vector<Token> tokens = prompt(200);
  const Token first = prefill(0, tokens);
  const std::vector<Token> undisturbed = decode(0, first);
  engine_->keep_prefix(0, 0);
  prefill(0, tokens);
  std::string state;
  ASSERT_TRUE(engine_->save_state(0, state));
  const auto error_of = [&](std::string_view bytes, std::uint32_t count) {
    EXPECT_TRUE(engine_->restore_state(1, state, 200));
    const Result<void> restored = engine_->restore_state(1, bytes, count);
    EXPECT_FALSE(restored);
    EXPECT_EQ(engine_->keep_prefix(1, 9999), 0U);
    EXPECT_EQ(used(), 200U);
    return restored ? Code::kInternal : restored.error().code;
  };
  std::string damaged = state;
  damaged[0] = static_cast<char>(damaged[0] ^ 1);
  EXPECT_EQ(error_of(damaged, 200), Code::kInvalidArgument) << "its magic number";
  EXPECT_EQ(error_of(state, 199), Code::kInvalidArgument);
  EXPECT_EQ(error_of(state, 201), Code::kInvalidArgument);
  EXPECT_EQ(error_of(state.substr(0, state.size() / 2), 200), Code::kInvalidArgument);
  EXPECT_EQ(error_of("", 200), Code::kInvalidArgument);
  prefill(2, prompt(150, "stone"));
  EXPECT_EQ(engine_->restore_state(1, state, 200).error().code, Code::kOutOfMemory);
  engine_->keep_prefix(2, 0);
  EXPECT_EQ(decode(0, first), undisturbed);
}

}  // namespace
}  // namespace pensieve::engine
