// The batch loop with pictures in prompts: whole, one a step, shared, and nobody waits for all.
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "worker/batch_loop.h"
#include "worker/testing/batch_loop_fixture.h"

namespace pensieve::worker {
namespace {

using engine::Token;

struct Files final : engine::PromptImages {};

class BatchLoopImagesTest : public BatchLoopTest {
 protected:
  static void append_image(std::vector<Token>& tokens, std::uint32_t hash, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      tokens.push_back(engine::image_token(hash * 1000 + static_cast<std::uint32_t>(i), i == 0));
    }
  }
  /// Text, a picture, text.
  static Job with_image(std::uint32_t id, std::uint32_t hash, std::size_t count = 40) {
    std::vector<Token> tokens = tokens_from(1, 10);
    append_image(tokens, hash, count);
    const std::vector<Token> rest = tokens_from(2, 10);
    tokens.insert(tokens.end(), rest.begin(), rest.end());
    Job made = job(id, std::move(tokens), 4);
    made.images = std::make_shared<Files>();
    return made;
  }
};

TEST_F(BatchLoopImagesTest, APictureIsAStepOfItsOwnHoweverLargeItIs) {
  const Job large = with_image(1, 7, 400);  // More than a step has.
  run_alone(large);
  EXPECT_EQ(engine_->whole_images, std::vector<std::size_t>{400});
  EXPECT_EQ(story(1).text, alone(large).text);
  expect_done(1, StopCause::kTokenLimit);
  EXPECT_EQ(engine_->images[0], nullptr) << "files are given back with the request";
}

TEST_F(BatchLoopImagesTest, TheSamePictureIsSharedAndAnotherOneIsNot) {
  run_alone(with_image(1, 7));
  run_alone(with_image(2, 7));
  EXPECT_EQ(cached(2), 59U) << "all but the last token";
  run_alone(with_image(3, 8));
  EXPECT_EQ(cached(3), 10U) << "the text in front of the picture";
  EXPECT_EQ(story(3).text, alone(with_image(3, 8)).text);
  EXPECT_EQ(engine_->whole_images.size(), 2U);
}

TEST_F(BatchLoopImagesTest, NoPrefixEndsInsideAPicture) {
  // The last token is always processed: it is a part of the picture here.
  std::vector<Token> tokens = tokens_from(1, 10);
  append_image(tokens, 7, 40);
  for (const std::uint32_t id : {1U, 2U}) {
    Job ends = job(id, tokens, 4);
    ends.images = std::make_shared<Files>();
    run_alone(ends);
    EXPECT_EQ(story(id).text, alone(ends).text);
  }
  EXPECT_EQ(cached(2), 10U);
  EXPECT_EQ(engine_->whole_images, (std::vector<std::size_t>{40, 40}));
  // An engine that goes back in steps of 32 keeps a part of the picture, which is no use.
  make({});
  engine_->prefix_granularity = 32;
  run_alone(with_image(1, 7));
  run_alone(with_image(2, 7));
  EXPECT_EQ(cached(2), 0U);
  EXPECT_EQ(story(2).text, alone(with_image(2, 7)).text);
}

TEST_F(BatchLoopImagesTest, BetweenTwoPicturesTheOthersGetOn) {
  std::vector<Token> tokens = tokens_from(1, 10);
  for (std::uint32_t i = 0; i < 5; ++i) append_image(tokens, 10 + i, 20);
  tokens.push_back(5);
  Job album = job(1, tokens, 4);
  album.images = std::make_shared<Files>();
  submit(job(2, tokens_from(3, 5), 20));
  turns(3);
  const std::size_t before = engine_->steps.size();
  submit(album);
  turns(9);
  std::size_t decoded = 0;
  for (std::size_t i = before; i < engine_->steps.size(); ++i) {
    for (const FakeEngine::Input& input : engine_->steps[i]) {
      decoded += input.sequence == 0 && input.tokens == 1 ? 1 : 0;
    }
  }
  EXPECT_GE(decoded, 4U);
  drain();
  EXPECT_EQ(engine_->whole_images, (std::vector<std::size_t>(5, 20)));
  EXPECT_EQ(story(1).text, alone(album).text);
}

TEST_F(BatchLoopImagesTest, WithoutCellsForAPictureTheNewestWaits) {
  make({.cells = 100, .sequences = 4});
  submit(job(1, tokens_from(3, 30), 20));
  turns(2);
  const Job seen = with_image(2, 7);
  submit(seen);
  drain();
  expect_done(1, StopCause::kTokenLimit);
  expect_done(2, StopCause::kTokenLimit);
  EXPECT_EQ(story(2).text, alone(seen).text);
}

TEST_F(BatchLoopImagesTest, APictureThatCannotBeComputedFailsItsRequestOnly) {
  engine_->image_error = Error{Code::kInvalidArgument, "the image cannot be computed"};
  submit(job(1, tokens_from(3, 5), 6));
  submit(with_image(2, 7));
  drain();
  expect_done(1, StopCause::kTokenLimit);
  ASSERT_EQ(story(2).failed.size(), 1U);
  EXPECT_EQ(story(2).failed.front().message, "the image cannot be computed");
  EXPECT_EQ(story(2).ended, 1);
}

}  // namespace
}  // namespace pensieve::worker
