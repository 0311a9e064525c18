#include "engine/llama_vision.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <exception>
#include <string_view>
#include <utility>

#include <fmt/core.h>
#include <gguf.h>
#include <hash/hash.h>
#include <llama.h>
#include <mtmd.h>

#include "engine/image_decoder.h"
#include "engine/llama_plan.h"

namespace pensieve::engine {
namespace {

/// Projectors whose pictures all have the size that the buffers are made for, or are cut into tiles
/// of it. Others compute pictures of any size, for which there is no bound beforehand.
constexpr std::array<std::string_view, 5> kProjectors = {"gemma3", "idefics3", "internvl",
                                                         "janus_pro", "mlp"};

/// The tiles of one picture, as floating point numbers: 33 of 512 x 512.
constexpr Bytes kTilesBytesMax = 96_MiB;

/// A frame with images, its JSON, the prompt, its copy without control texts, and the files: of the
/// one prompt at a time that is read.
constexpr std::uint64_t kCopiesOfAPrompt = 5;

/// Graphs, tables, and what a matrix product works in: outside of the buffers that mtmd counts.
constexpr Bytes kTables = 48_MiB;

struct FreeGguf {
  void operator()(gguf_context* file) const { gguf_free(file); }
};
using GgufFile = std::unique_ptr<gguf_context, FreeGguf>;

mtmd_context_params vision_params(std::uint32_t threads) {
  mtmd_context_params params = mtmd_context_params_default();
  params.use_gpu = false;
  params.print_timings = false;
  params.n_threads = static_cast<int>(threads);
  params.warmup = true;  // Makes the buffers at once, so that none come later.
  return params;
}

std::string text_of(const gguf_context* file, const char* key) {
  const std::int64_t at = gguf_find_key(file, key);
  if (at < 0 || gguf_get_kv_type(file, at) != GGUF_TYPE_STRING) return "";
  return gguf_get_val_str(file, at);
}

bool flag_of(const gguf_context* file, const char* key) {
  const std::int64_t at = gguf_find_key(file, key);
  return at >= 0 && gguf_get_kv_type(file, at) == GGUF_TYPE_BOOL && gguf_get_val_bool(file, at);
}

std::optional<std::uint32_t> number_of(const gguf_context* file, const char* key) {
  const std::int64_t at = gguf_find_key(file, key);
  if (at < 0 || gguf_get_kv_type(file, at) != GGUF_TYPE_UINT32) return std::nullopt;
  return gguf_get_val_u32(file, at);
}

std::unexpected<Error> unsupported(const std::string& path, std::string_view why) {
  return fail(Code::kInvalidArgument,
              fmt::format("the projector {} {}. Set [models] projector to another file, or to "
                          "\"none\" to run the model without images",
                          path, why));
}

/// mtmd's messages have hints in further lines.
std::string why_not() {
  const std::string error = last_llama_error();
  return error.substr(0, error.find('\n'));
}

/// The side of the square pictures that the projector computes.
Result<std::uint32_t> tile_side(const std::string& path) {
  if (Result<void> checked = check_model_file(path); !checked) {
    return std::unexpected(checked.error());
  }
  const GgufFile file(gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr}));
  if (!file) return unsupported(path, "is no GGUF file that can be read");
  if (!flag_of(file.get(), "clip.has_vision_encoder")) {
    return unsupported(path, "does not read images");
  }
  if (flag_of(file.get(), "clip.has_audio_encoder") ||
      flag_of(file.get(), "clip.has_gen_audio_encoder")) {
    return unsupported(path, "is for sound as well, which is not supported");
  }
  std::string type = text_of(file.get(), "clip.projector_type");
  if (type.empty()) type = text_of(file.get(), "clip.vision.projector_type");
  if (std::find(kProjectors.begin(), kProjectors.end(), type) == kProjectors.end()) {
    return unsupported(path, fmt::format("is of the kind \"{}\", which is not supported", type));
  }
  const std::optional<std::uint32_t> side = number_of(file.get(), "clip.vision.image_size");
  if (!side || *side == 0 || *side > kImageSideMax) {
    return unsupported(path, "does not say how large its pictures are");
  }
  return *side;
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
std::uint64_t mixed(std::uint64_t value) {
  value += 0x9E3779B97F4A7C15U;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31);
}

/// The tokens of one part. SHA-256, because with a weaker hash somebody could make a picture whose
/// cached prefix is taken for another one's.
class PartTokens {
 public:
  explicit PartTokens(std::string_view file) {
    const std::string hex = hash_sha256_hex(file.data(), file.size());
    PENSIEVE_CHECK(hex.size() == 16 * words_.size());
    for (std::size_t i = 0; i < words_.size(); ++i) {
      std::from_chars(hex.data() + 16 * i, hex.data() + 16 * (i + 1), words_[i], 16);
    }
  }

  Token at(std::size_t chunk, std::uint32_t index) const {
    const std::uint64_t place = std::uint64_t{chunk} << 32 | index;
    const std::uint64_t hash = mixed(words_[index % words_.size()] ^ mixed(place));
    return image_token(static_cast<std::uint32_t>(hash >> 32), index == 0);
  }

 private:
  std::array<std::uint64_t, 4> words_{};
};

bool is_media(const mtmd_input_chunk* chunk) {
  return mtmd_input_chunk_get_type(chunk) != MTMD_INPUT_CHUNK_TYPE_TEXT;
}

}  // namespace

const LlamaImages::Part* LlamaImages::part_at(std::uint32_t at) const {
  const auto found =
      std::lower_bound(parts.begin(), parts.end(), at,
                       [](const Part& part, std::uint32_t to) { return part.at < to; });
  return found != parts.end() && found->at == at ? &*found : nullptr;
}

Result<Bytes> projector_bytes(const std::string& path) {
  const Result<std::uint32_t> side = tile_side(path);
  if (!side) return std::unexpected(side.error());
  std::uint64_t bytes = 0;
  for (const auto& [device, part] : mtmd_get_memory_usage(path.c_str(), vision_params(1))) {
    bytes += part;
  }
  if (bytes == 0) return unsupported(path, "cannot be loaded: " + why_not());
  return Bytes(bytes + kTables.count() + kDecodeBytesMax.count() + kTilesBytesMax.count() +
               kImageFilesMax.count() + kCopiesOfAPrompt * kImageCharactersMax);
}

struct LlamaVision::Impl {
  /// What encode() keeps.
  struct Open {
    std::shared_ptr<const std::string> file;
    mtmd::input_chunks_ptr chunks;
    std::optional<std::size_t> encoded;  // Index of the media chunk whose embeddings are there.
  };

  std::uint64_t tile_bytes() const { return std::uint64_t{side} * side * 3 * sizeof(float); }

  /// What stands for one picture. Null pixels: its size decides, and it cannot be computed.
  Result<mtmd::input_chunks_ptr> chunks_of(ImageSize size, const unsigned char* rgb) const;
  Result<std::shared_ptr<const std::string>> keep(std::string file) const;
  Result<void> open(const LlamaImages& images, const LlamaImages::Part& part);
  static bool tick_while_computing(ggml_tensor* /*tensor*/, bool asks, void* data);

  Options options;
  ProgressTick tick;
  std::uint32_t side = 0;
  std::uint32_t width = 0;  // Of an embedding.
  std::uint32_t nodes = 0;  // Computed, for the tick.
  mtmd::context_ptr context;
  /// Bytes of all files that append() gave out; shared with them, because they may outlive us.
  std::shared_ptr<std::atomic<std::uint64_t>> held =
      std::make_shared<std::atomic<std::uint64_t>>(0);
  Open opened;
};

/// The graph is computed in pieces of some nodes, with a tick between them: a layer of a large
/// encoder takes a second on a small machine.
bool LlamaVision::Impl::tick_while_computing(ggml_tensor* /*tensor*/, bool asks, void* data) {
  constexpr std::uint32_t kNodesBetweenTicks = 16;
  Impl& impl = *static_cast<Impl*>(data);
  if (asks) return ++impl.nodes % kNodesBetweenTicks == 0;
  if (impl.tick) impl.tick();
  return true;
}

Result<mtmd::input_chunks_ptr> LlamaVision::Impl::chunks_of(ImageSize size,
                                                            const unsigned char* rgb) const {
  const mtmd::bitmap_ptr bitmap(mtmd_bitmap_init(size.width, size.height, rgb));
  const mtmd_bitmap* const bitmaps[] = {bitmap.get()};
  const std::string_view marker = mtmd_get_marker(context.get());
  const mtmd_input_text text{marker.data(), marker.size(), false, true};
  mtmd::input_chunks_ptr chunks(mtmd_input_chunks_init());
  if (mtmd_tokenize(context.get(), chunks.get(), &text, bitmaps, 1) != 0) {
    return fail(Code::kInvalidArgument, "the image cannot be read: " + why_not());
  }
  std::uint64_t tiles = 0;
  for (std::size_t i = 0; i < mtmd_input_chunks_size(chunks.get()); ++i) {
    const mtmd_input_chunk* const chunk = mtmd_input_chunks_get(chunks.get(), i);
    if (!is_media(chunk)) continue;
    ++tiles;
    if (!mtmd_decode_use_non_causal(context.get(), chunk)) continue;
    if (mtmd_input_chunk_get_n_tokens(chunk) > options.step_tokens_max) {
      return fail(Code::kInvalidArgument, "the image takes more tokens than a step may have");
    }
  }
  if (tiles * tile_bytes() > kTilesBytesMax.count()) {
    return fail(Code::kInvalidArgument,
                fmt::format("the image would be cut into {} tiles: scale it down", tiles));
  }
  return chunks;
}

Result<std::shared_ptr<const std::string>> LlamaVision::Impl::keep(std::string file) const {
  const std::uint64_t bytes = file.size();
  const std::shared_ptr<void> lease(nullptr, [counter = held, bytes](void*) {
    counter->fetch_sub(bytes, std::memory_order_relaxed);
  });
  if (held->fetch_add(bytes, std::memory_order_relaxed) + bytes > kImageFilesMax.count()) {
    return fail(Code::kUnavailable, "too many images wait for the model");
  }
  return std::shared_ptr<const std::string>(new std::string(std::move(file)),
                                            [lease](const std::string* owned) { delete owned; });
}

Result<void> LlamaVision::Impl::open(const LlamaImages& images, const LlamaImages::Part& part) {
  const std::shared_ptr<const std::string>& file = images.files.at(part.file);
  if (opened.file == file) return {};
  opened = Open();
  Result<Pixels> pixels = decode_image(*file);
  if (!pixels) return std::unexpected(pixels.error());
  if (tick) tick();
  Result<mtmd::input_chunks_ptr> chunks = chunks_of(pixels->size, pixels->rgb.get());
  if (!chunks) return std::unexpected(chunks.error());
  if (tick) tick();
  opened.file = file;
  opened.chunks = *std::move(chunks);
  return {};
}

LlamaVision::LlamaVision(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LlamaVision::~LlamaVision() = default;

Result<std::unique_ptr<LlamaVision>> LlamaVision::load(const llama_model* model,
                                                       const Options& options,
                                                       const ProgressTick& tick) {
  const Result<std::uint32_t> side = tile_side(options.path);
  if (!side) return std::unexpected(side.error());
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->tick = tick;
  impl->side = *side;
  impl->width = static_cast<std::uint32_t>(llama_model_n_embd_inp(model));
  mtmd_context_params params = vision_params(options.threads);
  params.cb_eval = &Impl::tick_while_computing;
  params.cb_eval_user_data = impl.get();
  params.progress_callback = [](float /*share*/, void* data) {
    if (const ProgressTick& seen = static_cast<Impl*>(data)->tick) seen();
    return true;
  };
  params.progress_callback_user_data = impl.get();
  impl->context.reset(mtmd_init_from_file(options.path.c_str(), model, params));
  if (!impl->context) {
    return unsupported(options.path, "does not fit the model: " + why_not());
  }
  if (mtmd_decode_use_mrope(impl->context.get())) {
    return unsupported(options.path, "is for a model with M-RoPE, which is not supported");
  }
  // A projector of another model of the same width asks for tokens that this one has not.
  const Result<mtmd::input_chunks_ptr> probe = impl->chunks_of({*side, *side}, nullptr);
  if (!probe) return unsupported(options.path, "does not fit: " + probe.error().message);
  for (std::size_t i = 0; i < mtmd_input_chunks_size(probe->get()); ++i) {
    std::size_t count = 0;
    const llama_token* const tokens =
        mtmd_input_chunk_get_tokens_text(mtmd_input_chunks_get(probe->get(), i), &count);
    if (std::any_of(tokens, tokens + count, [](llama_token token) { return token < 0; })) {
      return unsupported(options.path, "needs tokens that the model does not have");
    }
  }
  return std::unique_ptr<LlamaVision>(new LlamaVision(std::move(impl)));
}

Result<void> LlamaVision::append(const Image& image, std::vector<Token>& tokens,
                                 LlamaImages& images) const {
  const auto in_field = [&image](Error error) {
    error.message = fmt::format("{}: {}", image.field, error.message);
    return std::unexpected(std::move(error));
  };
  Result<std::string> file = file_of(image);
  if (!file) return std::unexpected(file.error());
  const Result<ImageSize> size = image_size(*file);
  if (!size) return in_field(size.error());
  images.pixels += size->pixels();
  if (images.pixels > kPromptPixelsMax) {
    return in_field({Code::kInvalidArgument,
                     fmt::format("the images up to this one have {} pixels; {} are the most of one "
                                 "request: scale them down",
                                 images.pixels, kPromptPixelsMax)});
  }
  if (const Result<Pixels> pixels = decode_image(*file); !pixels) return in_field(pixels.error());
  const Result<mtmd::input_chunks_ptr> chunks = impl_->chunks_of(*size, nullptr);
  if (!chunks) return in_field(chunks.error());
  const PartTokens hashes(*file);
  auto kept = impl_->keep(*std::move(file));
  if (!kept) return in_field(kept.error());
  images.files.push_back(*std::move(kept));
  for (std::size_t i = 0; i < mtmd_input_chunks_size(chunks->get()); ++i) {
    const mtmd_input_chunk* const chunk = mtmd_input_chunks_get(chunks->get(), i);
    if (!is_media(chunk)) {
      std::size_t count = 0;
      const llama_token* const text = mtmd_input_chunk_get_tokens_text(chunk, &count);
      tokens.insert(tokens.end(), text, text + count);
      continue;
    }
    const auto count = static_cast<std::uint32_t>(mtmd_input_chunk_get_n_tokens(chunk));
    images.parts.push_back(
        {static_cast<std::uint32_t>(tokens.size()), count, images.files.size() - 1, i});
    for (std::uint32_t index = 0; index < count; ++index) tokens.push_back(hashes.at(i, index));
  }
  return {};
}

Result<std::span<const float>> LlamaVision::encode(const LlamaImages& images,
                                                   const LlamaImages::Part& part) {
  if (Result<void> opened = impl_->open(images, part); !opened) {
    return std::unexpected(opened.error());
  }
  Impl::Open& open = impl_->opened;
  if (part.chunk >= mtmd_input_chunks_size(open.chunks.get())) {
    return fail(Code::kInvalidArgument, "the image changed between two readings");
  }
  const mtmd_input_chunk* const chunk = mtmd_input_chunks_get(open.chunks.get(), part.chunk);
  if (!is_media(chunk) || mtmd_input_chunk_get_n_tokens(chunk) != part.tokens) {
    return fail(Code::kInvalidArgument, "the image changed between two readings");
  }
  if (open.encoded != part.chunk) {
    open.encoded.reset();
    if (mtmd_encode_chunk(impl_->context.get(), chunk) != 0) {
      return fail(Code::kInvalidArgument, "the image cannot be computed: " + why_not());
    }
    open.encoded = part.chunk;
  }
  return std::span<const float>(mtmd_get_output_embd(impl_->context.get()),
                                std::size_t{part.tokens} * impl_->width);
}

void LlamaVision::forget() {
  impl_->opened = Impl::Open();
}

bool LlamaVision::is_causal() const {
  return !mtmd_decode_use_non_causal(impl_->context.get(), nullptr);
}

}  // namespace pensieve::engine
