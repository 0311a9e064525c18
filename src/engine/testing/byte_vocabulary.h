// A vocabulary of single bytes (token = byte) and the end of generation at 256.
#pragma once

#include <string>
#include <vector>

#include "engine/engine.h"

namespace pensieve::engine {

inline constexpr Token kEnd = 256;

inline std::vector<std::string> byte_pieces() {
  std::vector<std::string> pieces;
  for (int byte = 0; byte < 256; ++byte) pieces.emplace_back(1, static_cast<char>(byte));
  pieces.emplace_back();
  return pieces;
}

}  // namespace pensieve::engine
