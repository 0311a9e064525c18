// Picture files to pixels, within bounds of memory: PNG, JPEG and the first frame of a GIF.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/prompt.h"

namespace pensieve::engine {

/// A screen of 3840 x 2160 fits. Models scale pictures down to 2048 and less on the longer side.
inline constexpr std::uint32_t kImagePixelsMax = 8U << 20;
/// Neither side is longer, or a strip of one pixel would become a long one in the model's grid.
inline constexpr std::uint32_t kImageSideMax = 8192;
/// What decoding takes beside the file, whatever the file says: 16 bytes for each of the pixels.
inline constexpr Bytes kDecodeBytesMax = 128_MiB;

struct ImageSize {
  std::uint32_t width = 0;  // At least 1, as is the height.
  std::uint32_t height = 0;

  std::uint64_t pixels() const { return std::uint64_t{width} * height; }
};

struct FreePixels {
  void operator()(unsigned char* pixels) const;
};

struct Pixels {
  ImageSize size;
  std::unique_ptr<unsigned char[], FreePixels> rgb;  // Rows of the width times three bytes.
};

/// The bytes of the file, which are of the kind that the image says.
/// Errors: kInvalidArgument, beginning with the image's field.
Result<std::string> file_of(const Image& image);

// `file` as file_of() gave it. Errors: kInvalidArgument where the file is broken or too large; the
// message has no field. Thread-safety: any thread.

/// What the file's head says, within the limits above.
Result<ImageSize> image_size(std::string_view file);

/// Takes memory only for a picture of such a size. One call at a time decodes, others wait.
Result<Pixels> decode_image(std::string_view file);

}  // namespace pensieve::engine
