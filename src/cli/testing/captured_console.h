// A console that keeps what is written.
#pragma once

#include <string>
#include <string_view>

#include "cli/console.h"

namespace pensieve::cli {

struct CapturedConsole {
  std::string out;
  std::string err;

  Console console() {
    Console made;
    made.out = [this](std::string_view text) { out += text; };
    made.err = [this](std::string_view text) { err += text; };
    return made;
  }
};

}  // namespace pensieve::cli
