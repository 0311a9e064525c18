// What a script may try of the things that a confined worker must not do, for tests of the walls.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace pensieve::engine {

struct Attempt {
  enum class Kind : std::uint8_t {
    kRead,     // Open the file `target`.
    kWrite,    // Make, or open for writing, the file `target`.
    kList,     // Open the folder `target`.
    kConnect,  // A TCP connection to port `target` of this machine.
    kExec,     // Become the program `target`.
    kSignal,   // Signal 0, which only asks, to process `target`.
  } kind = Kind::kRead;
  std::string target;
};

/// `VERB TARGET`: read, write, list, connect, exec, signal. Empty for anything else.
std::optional<Attempt> parse_attempt(std::string_view verb, std::string_view target);

/// Tries, and says how it went in one word: "done" or the name of the error ("EACCES"). An exec
/// that is allowed does not come back.
std::string perform(const Attempt& attempt);

/// Whether this call is the one that created the file: for what shall happen once in all.
Result<bool> create_once(const std::string& path);

}  // namespace pensieve::engine
