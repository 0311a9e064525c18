#include "engine/json_numbers.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace pensieve::engine {
namespace {

constexpr std::string_view kGreatest = "1.7976931348623157e308";
constexpr std::size_t kFiniteDigits = 308;  // As many digits, without an exponent, are finite.

/// One past the string that begins at `at`.
std::size_t end_of_string(std::string_view json, std::size_t at) {
  for (++at; at < json.size() && json[at] != '"'; ++at) {
    if (json[at] == '\\') ++at;
  }
  return std::min(at + 1, json.size());
}

bool is_infinite(std::string_view number) {
  const bool may_be = number.size() > kFiniteDigits || number.find_first_of("eE") != number.npos;
  return may_be && std::isinf(std::strtod(std::string(number).c_str(), nullptr));
}

}  // namespace

std::string with_finite_numbers(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  for (std::size_t at = 0; at < json.size();) {
    const std::size_t next = std::min(json.find_first_of("\"-0123456789", at), json.size());
    out += json.substr(at, next - at);
    at = next;
    if (at == json.size()) break;
    const bool is_string = json[at] == '"';
    const std::size_t end =
        is_string ? end_of_string(json, at)
                  : std::min(json.find_first_not_of("+-.0123456789eE", at), json.size());
    const std::string_view token = json.substr(at, end - at);
    if (!is_string && is_infinite(token)) {
      if (token.front() == '-') out += '-';
      out += kGreatest;
    } else {
      out += token;
    }
    at = end;
  }
  return out;
}

}  // namespace pensieve::engine
