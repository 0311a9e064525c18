// Images on a real model with a made-up projector: what they say means nothing, but another picture
// is another answer, and the same one is the same.
#include "engine/llama_vision.h"

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ggml.h>
#include <gguf.h>
#include <gtest/gtest.h>

#include "base/base64.h"
#include "engine/image_decoder.h"
#include "engine/testing/llama_fixture.h"

namespace pensieve::engine {
namespace {

/// Makes a file that a text model of `width` can use, with weights at random: it sees nothing that
/// means anything. `kind` is what the file says that it is; it is "janus_pro". Deleted with this
/// object.
class TestProjector {
 public:
  TestProjector(const std::string& kind, std::uint32_t width) : width_(width) {
    std::string pattern = (std::filesystem::temp_directory_path() / "projector-XXXXXX").string();
    PENSIEVE_CHECK(mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
    write(kind);
  }
  ~TestProjector() { std::filesystem::remove_all(folder_); }
  TestProjector(const TestProjector&) = delete;
  TestProjector& operator=(const TestProjector&) = delete;

  std::string path() const { return (folder_ / "mmproj-test.gguf").string(); }

  static constexpr std::uint32_t kJanusTokens = 16;

 private:
  static constexpr std::uint32_t kInner = 64;  // Width of the encoder.
  static constexpr std::uint32_t kSide = 64;   // Of a picture; patches have 16.

  void add(const std::string& name, std::vector<std::int64_t> shape, float scale) {
    ggml_tensor* const tensor = ggml_new_tensor(context_.get(), GGML_TYPE_F32,
                                                static_cast<int>(shape.size()), shape.data());
    ggml_set_name(tensor, name.c_str());
    auto* const values = static_cast<float*>(tensor->data);
    for (std::int64_t i = 0; i < ggml_nelements(tensor); ++i) {
      state_ = state_ * 6364136223846793005U + 1442695040888963407U;
      values[i] = scale * (static_cast<float>(state_ >> 40) / (1 << 23) - 1.0F);
    }
    gguf_add_tensor(file_.get(), tensor);
  }

  void add_layer() {
    for (const char* part : {"attn_q", "attn_k", "attn_v", "attn_out"}) {
      add(std::string("v.blk.0.") + part + ".weight", {kInner, kInner}, 0.3F);
      add(std::string("v.blk.0.") + part + ".bias", {kInner}, 0.1F);
    }
    for (const char* part : {"ln1", "ln2"}) {
      add(std::string("v.blk.0.") + part + ".weight", {kInner}, 1.0F);
      add(std::string("v.blk.0.") + part + ".bias", {kInner}, 0.1F);
    }
    add("v.blk.0.ffn_up.weight", {kInner, 2 * kInner}, 0.3F);
    add("v.blk.0.ffn_up.bias", {2 * kInner}, 0.1F);
    add("v.blk.0.ffn_down.weight", {2 * kInner, kInner}, 0.3F);
    add("v.blk.0.ffn_down.bias", {kInner}, 0.1F);
  }

  void write(const std::string& kind) {
    constexpr std::int64_t patch = 16;
    const std::int64_t patches = (kSide / patch) * (kSide / patch);
    gguf_context* const file = file_.get();
    gguf_set_val_str(file, "general.architecture", "clip");
    gguf_set_val_bool(file, "clip.has_vision_encoder", true);
    gguf_set_val_str(file, "clip.projector_type", kind.c_str());
    gguf_set_val_bool(file, "clip.use_gelu", true);
    gguf_set_val_u32(file, "clip.vision.embedding_length", kInner);
    gguf_set_val_u32(file, "clip.vision.attention.head_count", 2);
    gguf_set_val_u32(file, "clip.vision.feed_forward_length", 2 * kInner);
    gguf_set_val_u32(file, "clip.vision.block_count", 1);
    gguf_set_val_u32(file, "clip.vision.projection_dim", static_cast<std::uint32_t>(width_));
    gguf_set_val_f32(file, "clip.vision.attention.layer_norm_epsilon", 1e-6F);
    gguf_set_val_u32(file, "clip.vision.image_size", kSide);
    gguf_set_val_u32(file, "clip.vision.patch_size", static_cast<std::uint32_t>(patch));
    const float half[] = {0.5F, 0.5F, 0.5F};
    gguf_set_arr_data(file, "clip.vision.image_mean", GGUF_TYPE_FLOAT32, half, 3);
    gguf_set_arr_data(file, "clip.vision.image_std", GGUF_TYPE_FLOAT32, half, 3);
    add("v.patch_embd.weight", {patch, patch, 3, kInner}, 0.1F);
    add("v.patch_embd.bias", {kInner}, 0.1F);
    add("v.position_embd.weight", {kInner, patches}, 0.1F);
    add_layer();
    add("v.post_ln.weight", {kInner}, 1.0F);
    add("v.post_ln.bias", {kInner}, 0.1F);
    add("mm.0.weight", {kInner, width_}, 0.3F);
    add("mm.0.bias", {width_}, 0.1F);
    add("mm.1.weight", {width_, width_}, 0.1F);
    add("mm.1.bias", {width_}, 0.1F);
    PENSIEVE_CHECK(gguf_write_to_file(file, path().c_str(), false));
  }

  struct FreeFile {
    void operator()(gguf_context* file) const { gguf_free(file); }
  };
  struct FreeTensors {
    void operator()(ggml_context* context) const { ggml_free(context); }
  };

  const std::int64_t width_;
  std::filesystem::path folder_;
  std::uint64_t state_ = 1;
  std::unique_ptr<gguf_context, FreeFile> file_{gguf_init_empty()};
  std::unique_ptr<ggml_context, FreeTensors> context_{
      ggml_init({.mem_size = 16 << 20, .mem_buffer = nullptr, .no_alloc = false})};
};

/// A black and white PNG: each row is `pattern`, repeated. Not compressed.
std::string png(std::uint32_t width, std::uint32_t height, char pattern) {
  const auto big_endian = [](std::uint32_t number) {
    std::string bytes;
    for (const int shift : {24, 16, 8, 0}) bytes += static_cast<char>(number >> shift & 0xFFU);
    return bytes;
  };
  const auto chunk = [&big_endian](const std::string& kind, const std::string& data) {
    std::uint32_t crc = ~0U;
    for (const char c : kind + data) {
      crc ^= static_cast<unsigned char>(c);
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
    }
    return big_endian(static_cast<std::uint32_t>(data.size())) + kind + data + big_endian(~crc);
  };
  std::string rows;
  for (std::uint32_t y = 0; y < height; ++y) {
    rows += '\0' + std::string((width + 7) / 8, pattern);
  }
  std::string stream = "\x78\x01";
  for (std::size_t at = 0; at < rows.size(); at += 65535) {
    const std::string part = rows.substr(at, 65535);
    const auto size = static_cast<std::uint16_t>(part.size());
    stream += at + 65535 >= rows.size() ? '\1' : '\0';
    for (const auto half : {size, static_cast<std::uint16_t>(~size)}) {
      stream += static_cast<char>(half & 0xFFU);
      stream += static_cast<char>(half >> 8);
    }
    stream += part;
  }
  std::uint32_t low = 1;
  std::uint32_t high = 0;
  for (const char c : rows) {
    low = (low + static_cast<unsigned char>(c)) % 65521;
    high = (high + low) % 65521;
  }
  stream += big_endian(high << 16 | low);
  const std::string head = big_endian(width) + big_endian(height) + std::string("\1\0\0\0\0", 5);
  return "\x89PNG\r\n\x1A\n" + chunk("IHDR", head) + chunk("IDAT", stream) + chunk("IEND", "");
}

Image image_of(const std::string& file, std::size_t at = 0) {
  return {at, "image/png", to_base64(file), "messages.0.content.1"};
}

Prompt prompt_with(const std::vector<Image>& images, std::string text = "Describe it.") {
  Message message{Role::kUser, std::move(text)};
  message.images = images;
  return {.messages = {message}};
}

std::size_t images_in(const std::vector<Token>& tokens) {
  return static_cast<std::size_t>(std::count_if(tokens.begin(), tokens.end(), is_image));
}

class LlamaVisionTest : public testing::Test {
 protected:
  LlamaVisionTest() : projector_("janus_pro", 576) {
    options_ = small_options();
    options_.projector_path = projector_.path();
  }

  void SetUp() override {
    engine_ = loaded(options_, &ticks_);
    ASSERT_NE(engine_, nullptr);
  }

  Prepared prepared(const Prompt& prompt) {
    Result<Prepared> prepared = engine_->prepare(prompt);
    EXPECT_TRUE(prepared) << prepared.error().message;
    return prepared ? *std::move(prepared) : Prepared();
  }

  /// Processes what `sequence` does not hold yet and returns the greedy answer of some tokens.
  std::vector<Token> answer(SequenceId sequence, const Prepared& prompt, std::size_t held = 0) {
    Sampling greedy;
    greedy.temperature = 0.0F;
    EXPECT_TRUE(engine_->set_sampling(sequence, greedy, {}));
    engine_->set_images(sequence, prompt.images);
    std::vector<Token> sampled;
    std::span<const Token> rest = std::span(prompt.tokens).subspan(held);
    while (!rest.empty()) {
      std::size_t count = 1;
      while (count < rest.size() && !starts_image(rest[count]) &&
             is_image(rest[count]) == is_image(rest[0])) {
        ++count;
      }
      const StepInput input{sequence, rest.first(count), count == rest.size()};
      const Result<void> done = engine_->step({&input, 1}, sampled);
      EXPECT_TRUE(done) << done.error().message;
      if (!done) return {};
      rest = rest.subspan(count);
    }
    for (int i = 0; i < 8; ++i) {
      const Token last = sampled.back();
      const StepInput input{sequence, {&last, 1}, true};
      EXPECT_TRUE(engine_->step({&input, 1}, sampled));
    }
    engine_->set_images(sequence, nullptr);
    return sampled;
  }

  std::string refusal(const Image& image) {
    const Result<Prepared> result = engine_->prepare(prompt_with({image}));
    EXPECT_FALSE(result);
    if (result) return "";
    EXPECT_EQ(result.error().code, Code::kInvalidArgument);
    return result.error().message;
  }

  const TestProjector projector_;
  LoadOptions options_;
  int ticks_ = 0;
  std::unique_ptr<Engine> engine_;
};

TEST_F(LlamaVisionTest, APictureIsTokensOfItsOwnWhereItStands) {
  const Prepared with = prepared(prompt_with({image_of(png(40, 40, 'a'), 9)}));
  const Prepared without = prepared(prompt_with({}));
  EXPECT_EQ(images_in(with.tokens), TestProjector::kJanusTokens);
  EXPECT_EQ(images_in(without.tokens), 0U);
  EXPECT_EQ(without.images, nullptr);
  const auto first = std::find_if(with.tokens.begin(), with.tokens.end(), is_image);
  EXPECT_TRUE(starts_image(*first));
  EXPECT_EQ(std::count_if(with.tokens.begin(), with.tokens.end(), starts_image), 1);
  // "Describe" is in front of it, "it." behind.
  std::string before;
  for (auto token = with.tokens.begin(); token != first; ++token) {
    engine_->append_piece(*token, before);
  }
  EXPECT_TRUE(before.ends_with("Describe ")) << before;
  EXPECT_EQ(prepared(prompt_with({image_of(png(40, 40, 'a'), 9)})).tokens, with.tokens);
  EXPECT_NE(prepared(prompt_with({image_of(png(40, 40, 'b'), 9)})).tokens, with.tokens);
  EXPECT_EQ(engine_->tokenize(prompt_with({image_of(png(40, 40, 'a'), 9)})).value(), with.tokens);
}

TEST_F(LlamaVisionTest, TheAnswerDependsOnThePictureAndOnNothingElse) {
  const Prepared stripes = prepared(prompt_with({image_of(png(40, 40, '\x0F'))}));
  const Prepared black = prepared(prompt_with({image_of(png(40, 40, '\0'))}));
  ticks_ = 0;
  const std::vector<Token> first = answer(0, stripes);
  EXPECT_GT(ticks_, 4) << "the watchdog sees that the encoder works";
  const std::vector<Token> other = answer(1, black);
  EXPECT_NE(first, other);
  EXPECT_EQ(answer(2, stripes), first);
  engine_->keep_prefix(0, 0);
  EXPECT_EQ(answer(0, black), other);
}

TEST_F(LlamaVisionTest, AKeptPictureIsNotComputedAgain) {
  const Prepared prompt =
      prepared(prompt_with({image_of(png(40, 40, 'x')), image_of(png(40, 40, 'y'), 3)}));
  const std::vector<Token> fresh = answer(0, prompt);
  std::uint32_t kept = 0;
  while (!starts_image(prompt.tokens[kept])) ++kept;
  const std::uint32_t second = kept + TestProjector::kJanusTokens;
  for (const std::uint32_t cut : {kept, second}) {
    ASSERT_EQ(engine_->keep_prefix(0, cut), cut);
    EXPECT_EQ(answer(0, prompt, cut), fresh);
  }
  ASSERT_EQ(engine_->share_prefix(0, 1, second), second);
  EXPECT_EQ(answer(1, prompt, second), fresh);
  std::string state;
  engine_->keep_prefix(0, second);
  ASSERT_TRUE(engine_->save_state(0, state));
  ASSERT_TRUE(engine_->restore_state(2, state, second));
  EXPECT_EQ(answer(2, prompt, second), fresh);
}

TEST_F(LlamaVisionTest, WithoutCellsForThePictureNothingChanges) {
  std::vector<Token> filler = prepared(prompt_with({}, std::string(3000, 'x'))).tokens;
  filler.resize(1024 - 8);
  for (std::size_t at = 0; at < filler.size(); at += 256) {
    const StepInput input{
        1, std::span(filler).subspan(at, std::min<std::size_t>(256, filler.size() - at)), false};
    std::vector<Token> sampled;
    ASSERT_TRUE(engine_->step({&input, 1}, sampled));
  }
  Prompt prompt = prompt_with({image_of(png(40, 40, 'x'))});
  const Prepared ready = prepared(prompt);
  std::size_t at = 0;
  while (!starts_image(ready.tokens[at])) ++at;
  engine_->keep_prefix(1, static_cast<std::uint32_t>(filler.size() - at));
  std::vector<Token> sampled;
  engine_->set_images(0, ready.images);
  const StepInput head{0, std::span(ready.tokens).first(at), false};
  ASSERT_TRUE(engine_->step({&head, 1}, sampled));
  const StepInput picture{0, std::span(ready.tokens).subspan(at, TestProjector::kJanusTokens),
                          false};
  EXPECT_EQ(engine_->step({&picture, 1}, sampled).error().code, Code::kOutOfMemory);
  EXPECT_EQ(engine_->keep_prefix(0, 9999), at);
  engine_->keep_prefix(1, 0);
  EXPECT_TRUE(engine_->step({&picture, 1}, sampled));
  EXPECT_EQ(engine_->keep_prefix(0, 9999), at + TestProjector::kJanusTokens);
}

TEST_F(LlamaVisionTest, WhatIsNoPictureIsRefusedByName) {
  const std::string good = png(40, 40, 'x');
  const auto with_type = [](const std::string& file, const char* type) {
    Image image = image_of(file);
    image.media_type = type;
    return image;
  };
  EXPECT_EQ(refusal(with_type(good, "image/jpeg")),
            "messages.0.content.1: the image was specified as image/jpeg, but appears to be "
            "image/png");
  EXPECT_EQ(refusal(image_of("no picture")),
            "messages.0.content.1: the data is no PNG, JPEG or GIF image");
  EXPECT_NE(refusal(with_type("RIFF1234WEBPVP8 ", "image/webp")).find("image/webp cannot be read"),
            std::string::npos);
  Image odd = image_of(good);
  odd.base64 = "*";
  EXPECT_EQ(refusal(odd), "messages.0.content.1: the image is no valid base64");
  for (const std::size_t size : {std::size_t{8}, std::size_t{20}, good.size() / 2}) {
    EXPECT_NE(refusal(image_of(good.substr(0, size))).find("messages.0.content.1: the image is"),
              std::string::npos);
  }
  EXPECT_NE(refusal(image_of(png(8193, 8, 'x'))).find("8193 x 8 pixels"), std::string::npos);
  EXPECT_NE(refusal(image_of(png(4096, 2049, 'x'))).find("4096 x 2049"), std::string::npos);
  // A head that promises far more than there is.
  std::string bomb = png(64, 64, 'x');
  bomb.replace(16, 8, std::string("\0\0\xFF\xFF\0\0\xFF\xFF", 8));
  EXPECT_NE(refusal(image_of(bomb)).find("the image"), std::string::npos);
  EXPECT_EQ(images_in(prepared(prompt_with({image_of(good)})).tokens), TestProjector::kJanusTokens);
}

TEST_F(LlamaVisionTest, WhatOnePromptMakesTheDecoderDoHasABound) {
  const Image large = image_of(png(4096, 2048, 'x'));
  EXPECT_TRUE(engine_->prepare(prompt_with(std::vector<Image>(4, large))));
  const Result<Prepared> album = engine_->prepare(prompt_with(std::vector<Image>(17, large)));
  ASSERT_FALSE(album);
  EXPECT_EQ(album.error().code, Code::kInvalidArgument);
  EXPECT_NE(album.error().message.find("142606336 pixels"), std::string::npos)
      << album.error().message;
  Image scans = large;
  scans.media_type = "image/jpeg";
  std::string file = "\xFF\xD8\xFF";
  for (int i = 0; i < 33; ++i) file += "\xFF\xDA";
  scans.base64 = to_base64(file);
  EXPECT_NE(refusal(scans).find("too many scans"), std::string::npos);
}

TEST_F(LlamaVisionTest, FilesThatWaitHaveABound) {
  std::string file = png(64, 64, 'x');
  file.resize(10 << 20);  // What stands behind the picture is not read, but it is kept.
  std::vector<Prepared> waiting;
  for (int i = 0; i < 4; ++i) waiting.push_back(prepared(prompt_with({image_of(file)})));
  const Result<Prepared> fifth = engine_->prepare(prompt_with({image_of(file)}));
  ASSERT_FALSE(fifth);
  EXPECT_EQ(fifth.error().code, Code::kUnavailable) << fifth.error().message;
  waiting.pop_back();
  EXPECT_TRUE(engine_->prepare(prompt_with({image_of(file)})));
}

TEST_F(LlamaVisionTest, TheEstimateIsAnUpperBoundOfTheProcess) {
  engine_.reset();
  const Bytes before = resident();
  const Result<Plan> plan = make_llama_engine({})->plan(options_);
  ASSERT_TRUE(plan) << plan.error().message;
  engine_ = loaded(options_);
  Bytes most;
  const Prepared large = prepared(prompt_with({image_of(png(4096, 2048, 'U'))}));
  most = std::max(most, resident());
  answer(0, large);
  most = std::max(most, resident());
  EXPECT_GT(plan->estimate.images, 100_MiB);
  EXPECT_GE(plan->estimate.total(), most) << before.count() << " before";
}

TEST_F(LlamaVisionTest, AModelWithoutAProjectorSaysThatItCannotSee) {
  LoadOptions blind = options_;
  blind.projector_path.clear();
  engine_ = loaded(blind);
  EXPECT_EQ(refusal(image_of(png(8, 8, 'x'))),
            "messages.0.content.1: this model cannot read images");
  EXPECT_EQ(engine_->plan(blind)->estimate.images, Bytes());
}

TEST_F(LlamaVisionTest, AProjectorThatDoesNotFitIsRefusedBeforeItIsUsed) {
  const TestProjector unknown("qwen2vl_merger", 576);
  LoadOptions options = options_;
  options.projector_path = unknown.path();
  const Result<Plan> plan = engine_->plan(options);
  ASSERT_FALSE(plan);
  EXPECT_NE(plan.error().message.find("\"qwen2vl_merger\", which is not supported"),
            std::string::npos)
      << plan.error().message;
  const TestProjector narrow("janus_pro", 512);
  options.projector_path = narrow.path();
  const Result<ModelInfo> info = make_llama_engine({})->load(options, {});
  ASSERT_FALSE(info);
  EXPECT_EQ(info.error().code, Code::kInvalidArgument);
  EXPECT_NE(info.error().message.find("does not fit the model"), std::string::npos)
      << info.error().message;
  options.projector_path = model_path();
  EXPECT_FALSE(engine_->plan(options));
  options.projector_path = "/nowhere/mmproj.gguf";
  EXPECT_EQ(engine_->plan(options).error().code, Code::kNotFound);
}

}  // namespace
}  // namespace pensieve::engine
