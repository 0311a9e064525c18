#include "cli/console.h"

#include <cstdio>

#include <unistd.h>

namespace pensieve::cli {
namespace {

void write_now(std::FILE* stream, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fflush(stream);
}

/// The first of the three that is set decides, as in setlocale(3).
bool speaks_utf8(const std::map<std::string, std::string>& environment) {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const auto found = environment.find(name);
    if (found == environment.end() || found->second.empty()) continue;
    const std::string& text = found->second;
    return text.find("UTF-8") != std::string::npos || text.find("utf8") != std::string::npos;
  }
  return false;
}

}  // namespace

Console process_console(const std::map<std::string, std::string>& environment) {
  Console console;
  console.out = [](std::string_view text) { write_now(stdout, text); };
  console.err = [](std::string_view text) { write_now(stderr, text); };
  console.out_is_terminal = isatty(STDOUT_FILENO) == 1;
  const auto term = environment.find("TERM");
  const bool dumb = term == environment.end() || term->second == "dumb";
  // https://no-color.org: set and not empty means no colour.
  const auto no_color = environment.find("NO_COLOR");
  const bool plain = no_color != environment.end() && !no_color->second.empty();
  console.err_is_dimmable = isatty(STDERR_FILENO) == 1 && !dumb && !plain;
  console.unicode = console.out_is_terminal && speaks_utf8(environment);
  return console;
}

std::string without_controls(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
    const bool c1 = byte == 0xc2 && i + 1 < text.size() &&
                    static_cast<unsigned char>(text[i + 1]) >= 0x80 &&
                    static_cast<unsigned char>(text[i + 1]) <= 0x9f;
    if (c1) ++i;
    if (!control && !c1) out += text[i];
  }
  return out;
}

}  // namespace pensieve::cli
