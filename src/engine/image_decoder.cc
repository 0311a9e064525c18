#include "engine/image_decoder.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>

#include <fmt/core.h>

#include "base/base64.h"

namespace pensieve::engine {
namespace {

// The decoder's allocations, each with its size in front, so that their sum has a bound. Guarded
// by g_decoding.
std::mutex g_decoding;
std::size_t g_allocated = 0;

constexpr std::size_t kSizeBytes = alignof(std::max_align_t);

void* allocate(std::size_t bytes) {
  if (bytes > kDecodeBytesMax.count() || g_allocated + bytes > kDecodeBytesMax.count()) {
    return nullptr;
  }
  auto* const block = static_cast<unsigned char*>(std::malloc(kSizeBytes + bytes));
  if (block == nullptr) return nullptr;
  std::memcpy(block, &bytes, sizeof bytes);
  g_allocated += bytes;
  return block + kSizeBytes;
}

std::size_t size_of(const void* memory) {
  std::size_t bytes = 0;
  std::memcpy(&bytes, static_cast<const unsigned char*>(memory) - kSizeBytes, sizeof bytes);
  return bytes;
}

void release(void* memory) {
  if (memory == nullptr) return;
  g_allocated -= size_of(memory);
  std::free(static_cast<unsigned char*>(memory) - kSizeBytes);
}

void* reallocate(void* memory, std::size_t bytes) {
  void* const moved = allocate(bytes);
  if (moved == nullptr || memory == nullptr) return moved;
  std::memcpy(moved, memory, std::min(bytes, size_of(memory)));
  release(memory);
  return moved;
}

}  // namespace
}  // namespace pensieve::engine

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_NO_STDIO
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_GIF
#define STBI_MALLOC(size) pensieve::engine::allocate(size)
#define STBI_REALLOC(memory, size) pensieve::engine::reallocate(memory, size)
#define STBI_FREE(memory) pensieve::engine::release(memory)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

namespace pensieve::engine {
namespace {

std::string_view type_of(std::string_view file) {
  if (file.starts_with("\x89PNG\r\n\x1A\n")) return "image/png";
  if (file.starts_with("\xFF\xD8\xFF")) return "image/jpeg";
  if (file.starts_with("GIF87a") || file.starts_with("GIF89a")) return "image/gif";
  if (file.starts_with("RIFF") && file.substr(0, 12).ends_with("WEBP")) return "image/webp";
  return "";
}

std::unexpected<Error> invalid(std::string message) {
  return fail(Code::kInvalidArgument, std::move(message));
}

}  // namespace

void FreePixels::operator()(unsigned char* pixels) const {
  const std::lock_guard lock(g_decoding);
  release(pixels);
}

Result<std::string> file_of(const Image& image) {
  std::optional<std::string> file = from_base64(image.base64);
  if (!file) return invalid(fmt::format("{}: the image is no valid base64", image.field));
  const std::string_view type = type_of(*file);
  if (type == "image/webp") {
    return invalid(
        fmt::format("{}: images of the type image/webp cannot be read here; send "
                    "image/png, image/jpeg or image/gif",
                    image.field));
  }
  if (type.empty()) {
    return invalid(fmt::format("{}: the data is no PNG, JPEG or GIF image", image.field));
  }
  if (type != image.media_type) {
    return invalid(fmt::format("{}: the image was specified as {}, but appears to be {}",
                               image.field, image.media_type, type));
  }
  return *std::move(file);
}

Result<Pixels> decode_image(std::string_view file) {
  if (file.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    return invalid("the image is too large");
  }
  const auto* const bytes = reinterpret_cast<const stbi_uc*>(file.data());
  const int length = static_cast<int>(file.size());
  const std::lock_guard lock(g_decoding);
  int width = 0;
  int height = 0;
  int channels = 0;
  if (stbi_info_from_memory(bytes, length, &width, &height, &channels) == 0 || width <= 0 ||
      height <= 0) {
    return invalid(fmt::format("the image is broken: {}", stbi_failure_reason()));
  }
  const auto wide = static_cast<std::uint32_t>(width);
  const auto high = static_cast<std::uint32_t>(height);
  if (wide > kImageSideMax || high > kImageSideMax ||
      std::uint64_t{wide} * high > kImagePixelsMax) {
    return invalid(
        fmt::format("the image has {} x {} pixels; at most {} pixels, and {} on a side, "
                    "can be read: scale it down",
                    wide, high, kImagePixelsMax, kImageSideMax));
  }
  Pixels pixels{wide, high, nullptr};
  unsigned char* const rgb = stbi_load_from_memory(bytes, length, &width, &height, &channels, 3);
  if (rgb == nullptr) {
    return invalid(fmt::format("the image is broken: {}", stbi_failure_reason()));
  }
  pixels.rgb.reset(rgb);
  PENSIEVE_CHECK(static_cast<std::uint32_t>(width) == wide &&
                 static_cast<std::uint32_t>(height) == high);
  return pixels;
}

}  // namespace pensieve::engine
