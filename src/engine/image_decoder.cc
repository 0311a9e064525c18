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

/// What the decoder says of the last file.
std::unexpected<Error> broken() {
  const std::string_view reason = stbi_failure_reason();
  if (reason != "outofmem") return invalid(fmt::format("the image is broken: {}", reason));
  return invalid(fmt::format("decoding the image takes more than {} bytes: scale it down",
                             kDecodeBytesMax.count()));
}

const stbi_uc* bytes_of(std::string_view file) {
  return reinterpret_cast<const stbi_uc*>(file.data());
}

/// A JPEG may walk over all of its pixels in each of its scans, and a scan may have a dozen bytes.
/// Usual files have one, or ten where they are progressive.
bool has_too_many_scans(std::string_view file) {
  constexpr std::size_t kScansMax = 32;
  constexpr std::string_view kStartOfScan = "\xFF\xDA";
  std::size_t scans = 0;
  for (std::size_t at = file.find(kStartOfScan); at != std::string_view::npos;
       at = file.find(kStartOfScan, at + kStartOfScan.size())) {
    ++scans;
  }
  return type_of(file) == "image/jpeg" && scans > kScansMax;
}

/// REQUIRES: g_decoding is held.
Result<ImageSize> size_in_head(std::string_view file) {
  if (file.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    return invalid("the image is too large");
  }
  if (has_too_many_scans(file)) return invalid("the image has too many scans");
  int width = 0;
  int height = 0;
  int channels = 0;
  if (stbi_info_from_memory(bytes_of(file), static_cast<int>(file.size()), &width, &height,
                            &channels) == 0 ||
      width <= 0 || height <= 0) {
    return broken();
  }
  const ImageSize size{static_cast<std::uint32_t>(width), static_cast<std::uint32_t>(height)};
  if (size.width <= kImageSideMax && size.height <= kImageSideMax &&
      size.pixels() <= kImagePixelsMax) {
    return size;
  }
  return invalid(
      fmt::format("the image has {} x {} pixels; at most {} pixels, and {} on a side, "
                  "can be read: scale it down",
                  size.width, size.height, kImagePixelsMax, kImageSideMax));
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

Result<ImageSize> image_size(std::string_view file) {
  const std::lock_guard lock(g_decoding);
  return size_in_head(file);
}

Result<Pixels> decode_image(std::string_view file) {
  const std::lock_guard lock(g_decoding);
  const Result<ImageSize> size = size_in_head(file);
  if (!size) return std::unexpected(size.error());
  Pixels pixels{*size, nullptr};
  int width = 0;
  int height = 0;
  int channels = 0;
  pixels.rgb.reset(stbi_load_from_memory(bytes_of(file), static_cast<int>(file.size()), &width,
                                         &height, &channels, 3));
  if (!pixels.rgb) return broken();
  PENSIEVE_CHECK(static_cast<std::uint32_t>(width) == size->width &&
                 static_cast<std::uint32_t>(height) == size->height);
  return pixels;
}

}  // namespace pensieve::engine
