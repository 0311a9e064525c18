// Reads the JSON payload of a frame; for the files that decode frames, and no others.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include <fmt/core.h>

#include <boost/json.hpp>

#include "base/bytes.h"
#include "base/error.h"

namespace pensieve::worker {

/// The fields of one payload. Boost.JSON reports a wrong shape by exception; decode() turns it
/// into an Error, so that no exception leaves the file that decodes.
class PayloadFields {
 public:
  explicit PayloadFields(const boost::json::value& value) : object_(value.as_object()) {}

  const boost::json::value& at(std::string_view key) const { return object_.at(key); }
  /// Null where there is no such field.
  const boost::json::value* find(std::string_view key) const { return object_.if_contains(key); }
  std::string text(std::string_view key) const { return std::string(at(key).as_string()); }
  bool flag(std::string_view key) const { return at(key).as_bool(); }
  double number(std::string_view key) const { return at(key).to_number<double>(); }
  std::uint32_t u32(std::string_view key) const { return at(key).to_number<std::uint32_t>(); }
  Bytes bytes(std::string_view key) const { return Bytes(at(key).to_number<std::uint64_t>()); }

  template <class E>
  E enumerator(std::string_view key, E last) const {
    const auto value = at(key).to_number<std::uint8_t>();
    if (value > static_cast<std::uint8_t>(last)) throw std::out_of_range(std::string(key));
    return static_cast<E>(value);
  }

  template <class T>
  std::optional<T> optional(std::string_view key) const {
    const boost::json::value* value = object_.if_contains(key);
    if (value == nullptr) return std::nullopt;
    return value->to_number<T>();
  }
  std::optional<Bytes> optional_bytes(std::string_view key) const {
    const std::optional<std::uint64_t> count = optional<std::uint64_t>(key);
    return count ? std::optional(Bytes(*count)) : std::nullopt;
  }

 private:
  const boost::json::object& object_;
};

/// What `read` makes of the payload's fields. Errors: kInvalidArgument that names `what`.
template <class T, class Read>
Result<T> decode_payload(std::string_view what, std::string_view payload, const Read& read) {
  try {
    const boost::json::value value = boost::json::parse(payload);
    return read(PayloadFields(value));
  } catch (const std::exception& error) {
    return fail(Code::kInvalidArgument, fmt::format("bad {} frame: {}", what, error.what()));
  }
}

}  // namespace pensieve::worker
