// JSON as a request brings it (bounded in depth and memory) and as a response prints it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include <boost/json.hpp>

#include "api/error.h"

namespace pensieve::api {

/// Objects and arrays inside each other. Tool schemas of real clients stay below 20.
inline constexpr std::size_t kJsonDepthMax = 64;

/// Most memory that the parsed form of a body of `body_bytes` bytes may take at once. A string
/// needs up to four times its length while it grows; a list of small values needs far more, so a
/// small hostile body could otherwise take a hundred times its size.
constexpr std::size_t parse_memory_bytes_max(std::size_t body_bytes) {
  constexpr std::size_t kSmallValuesBytesMax = std::size_t{32} << 20;
  const std::size_t small_values = 4 * body_bytes + (std::size_t{256} << 10);
  return 4 * body_bytes +
         (small_values < kSmallValuesBytesMax ? small_values : kSmallValuesBytesMax);
}

/// Parses one JSON text in UTF-8. Of duplicate keys the last value counts; a number that no
/// double holds becomes infinite, or 0, however long its exponent is.
/// Errors: 400 with what is wrong and where (line, column, byte, all counted from 1 but the byte,
/// which is an offset); 413 where parse_memory_bytes_max would be passed.
std::expected<boost::json::value, ApiError> parse_json(std::string_view body);

/// Appends `text` as a JSON string. Only quotes, backslashes and control characters are escaped, so
/// no raw line break can end an SSE line. A byte that is not part of valid UTF-8 (a path may hold
/// any) becomes U+FFFD: what we send is always JSON.
void append_json(std::string& out, std::string_view text);
void append_json(std::string& out, std::uint64_t number);

/// Whether all of `text` is valid UTF-8, as JSON's strings must be.
bool is_utf8(std::string_view text);

/// Why one field of a request is refused. The path is put together from the inside out, so that
/// nothing is formatted while all is well.
struct Refusal {
  std::string field;  // "content.1.text"; empty: the value itself.
  std::string reason;
};
std::unexpected<Refusal> refuse(std::string_view field, std::string reason);
Refusal within(std::string_view outer, Refusal inner);
Refusal within(std::size_t index, Refusal inner);
ApiError to_error(const Refusal& refusal);  // 400, "field: reason".

/// The member `key`; nullptr where it is absent or null, which clients mean alike.
const boost::json::value* find(const boost::json::object& object, std::string_view key);

/// A finite number, or nothing.
std::optional<double> number_from(const boost::json::value& field);
/// A whole number however it is written (64, 64.0, 6.4e1), or nothing.
std::optional<double> whole_number_from(const boost::json::value& field);

/// A member that must be there: "Field required" where it is absent.
std::expected<const boost::json::value*, Refusal> require(const boost::json::object& object,
                                                          std::string_view key);
/// The same, and it must be a string. The view lives as long as `object`.
std::expected<std::string_view, Refusal> require_string(const boost::json::object& object,
                                                        std::string_view key);

}  // namespace pensieve::api
