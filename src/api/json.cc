#include "api/json.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"

namespace pensieve::api {
namespace {

/// Memory for one parse, up to a limit. Not thread-safe: one parse, one thread.
class BoundedResource final : public boost::json::memory_resource {
 public:
  explicit BoundedResource(std::size_t bytes_max) : bytes_left_(bytes_max) {}

 private:
  // Boost.JSON 1.81 frees a key with another alignment than it asked for; what operator new gives
  // by default suits every alignment that it asks for.
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    PENSIEVE_CHECK(alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);
    if (bytes > bytes_left_) throw std::bad_alloc();
    void* memory = ::operator new(bytes);
    bytes_left_ -= bytes;
    return memory;
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t) override {
    ::operator delete(memory);
    bytes_left_ += bytes;
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

  std::size_t bytes_left_;
};

std::string place(std::string_view body, std::size_t offset) {
  const std::string_view before = body.substr(0, std::min(offset, body.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const std::size_t line_break = before.rfind('\n');
  const std::size_t column =
      before.size() - (line_break == std::string_view::npos ? 0 : line_break + 1) + 1;
  return fmt::format("line {} column {} (byte {})", line, column, before.size());
}

std::string reason_of(const boost::json::error_code& code, std::string_view body,
                      std::size_t offset) {
  if (code == boost::json::error::too_deep) {
    return fmt::format("it is nested deeper than {} levels", kJsonDepthMax);
  }
  if (code == boost::json::error::incomplete) return "it ends too early";
  if (code == boost::json::error::syntax && offset < body.size() &&
      static_cast<unsigned char>(body[offset]) >= 0x80) {
    return "unexpected or invalid UTF-8";
  }
  return code.message();
}

/// Bytes of the UTF-8 character beyond ASCII that `text` begins with; 0 where it begins with none.
/// The bounds of the second byte keep out overlong forms, surrogates and what lies past U+10FFFF.
std::size_t character_length(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (text.size() < length) return 0;
  const unsigned least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < least || byte(1) > most) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) return 0;
  }
  return length;
}

bool is_escaped(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\';
}

/// For a character that is_escaped, or a byte that belongs to no character.
void append_escape(std::string& out, char c) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD.
  constexpr std::string_view kHex = "0123456789abcdef";
  if (c == '"' || c == '\\') {
    out += '\\';
    out += c;
  } else if (c == '\n') {
    out += "\\n";
  } else if (c == '\t') {
    out += "\\t";
  } else if (c == '\r') {
    out += "\\r";
  } else if (static_cast<unsigned char>(c) >= 0x80) {
    out += kReplacement;
  } else {
    out += "\\u00";
    out += kHex[static_cast<unsigned char>(c) >> 4];
    out += kHex[static_cast<unsigned char>(c) & 0xF];
  }
}

/// `text` without exponents that Boost.JSON refuses because an int cannot hold them. It stays as
/// long as it is, and what was infinite, or 0, still is.
std::string with_short_exponents(std::string_view text) {
  constexpr std::size_t kDigitsMax = 9;
  constexpr std::string_view kDigits = "0123456789";
  std::string out(text);
  for (std::size_t at = out.find_first_of("\"eE"); at != std::string::npos;
       at = out.find_first_of("\"eE", at)) {
    if (out[at++] == '"') {
      while (at < out.size() && out[at] != '"') at += out[at] == '\\' ? 2 : 1;
      at = std::min(at + 1, out.size());
      continue;
    }
    if (at < 2 || !kDigits.contains(out[at - 2])) continue;  // Of `true`, say.
    if (at < out.size() && (out[at] == '+' || out[at] == '-')) ++at;
    const std::size_t end = std::min(out.find_first_not_of(kDigits, at), out.size());
    const std::size_t first = std::min(out.find_first_not_of('0', at), end);
    if (end - first > kDigitsMax) {
      std::fill_n(out.begin() + static_cast<std::ptrdiff_t>(at), end - at - kDigitsMax, '0');
      std::fill_n(out.begin() + static_cast<std::ptrdiff_t>(end - kDigitsMax), kDigitsMax, '9');
    }
    at = end;
  }
  return out;
}

struct Fault {
  boost::json::error_code code;
  std::size_t offset = 0;  // Of what is wrong.
};

/// Throws std::bad_alloc where it takes more than `bytes_max`.
std::expected<boost::json::value, Fault> parse_within(std::size_t bytes_max,
                                                      std::string_view body) {
  const auto memory = boost::json::make_shared_resource<BoundedResource>(bytes_max);
  boost::json::parse_options options;
  options.max_depth = kJsonDepthMax;
  boost::json::parser parser(memory, options);
  parser.reset(memory);
  Fault fault;
  fault.offset = parser.write_some(body.data(), body.size(), fault.code);
  if (!fault.code && fault.offset < body.size()) fault.code = boost::json::error::extra_data;
  if (fault.code) return std::unexpected(fault);
  return parser.release();
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const bool is_ascii = static_cast<unsigned char>(text[0]) < 0x80;
    const std::size_t length = is_ascii ? 1 : character_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::expected<boost::json::value, ApiError> parse_json(std::string_view body) {
  const std::size_t memory_max = parse_memory_bytes_max(body.size());
  try {
    auto parsed = parse_within(memory_max, body);
    if (!parsed && parsed.error().code == boost::json::error::exponent_overflow) {
      // The copy counts. The text that a model will see is still that of `body`.
      parsed = parse_within(memory_max - body.size(), with_short_exponents(body));
    }
    if (parsed) return *std::move(parsed);
    const Fault& fault = parsed.error();
    return std::unexpected(invalid_request(fmt::format("The request body is not valid JSON: {}: {}",
                                                       reason_of(fault.code, body, fault.offset),
                                                       place(body, fault.offset))));
  } catch (const std::bad_alloc&) {
    return std::unexpected(request_too_large(
        "The request body holds too many small JSON values: it would take more than " +
        fmt::format("{} bytes of memory", memory_max)));
  }
}

void append_json(std::string& out, std::string_view text) {
  out += '"';
  std::size_t copied = 0;
  for (std::size_t i = 0; i < text.size();) {
    const bool is_ascii = static_cast<unsigned char>(text[i]) < 0x80;
    const std::size_t length = is_ascii ? 1 : character_length(text.substr(i));
    if (length == 0 || is_escaped(text[i])) {
      out += text.substr(copied, i - copied);
      append_escape(out, text[i]);
      copied = ++i;
    } else {
      i += length;
    }
  }
  out += text.substr(copied);
  out += '"';
}

void append_json(std::string& out, std::uint64_t number) {
  out += std::to_string(number);
}

std::unexpected<Refusal> refuse(std::string_view field, std::string reason) {
  return std::unexpected(Refusal{std::string(field), std::move(reason)});
}

Refusal within(std::string_view outer, Refusal inner) {
  inner.field.insert(0, inner.field.empty() ? outer : fmt::format("{}.", outer));
  return inner;
}

Refusal within(std::size_t index, Refusal inner) {
  return within(std::to_string(index), std::move(inner));
}

ApiError to_error(const Refusal& refusal) {
  if (refusal.field.empty()) return invalid_request(refusal.reason);
  return invalid_request(refusal.field + ": " + refusal.reason);
}

const boost::json::value* find(const boost::json::object& object, std::string_view key) {
  const boost::json::value* value = object.if_contains(key);
  return value != nullptr && !value->is_null() ? value : nullptr;
}

std::optional<double> number_from(const boost::json::value& field) {
  if (field.is_int64()) return static_cast<double>(field.get_int64());
  if (field.is_uint64()) return static_cast<double>(field.get_uint64());
  if (field.is_double() && std::isfinite(field.get_double())) return field.get_double();
  return std::nullopt;
}

std::optional<double> whole_number_from(const boost::json::value& field) {
  const std::optional<double> number = number_from(field);
  return number && std::trunc(*number) == *number ? number : std::nullopt;
}

std::expected<const boost::json::value*, Refusal> require(const boost::json::object& object,
                                                          std::string_view key) {
  const boost::json::value* value = object.if_contains(key);
  if (value == nullptr) return std::unexpected(Refusal{std::string(key), "Field required"});
  return value;
}

std::expected<std::string_view, Refusal> require_string(const boost::json::object& object,
                                                        std::string_view key) {
  const auto value = require(object, key);
  if (!value) return std::unexpected(value.error());
  const boost::json::string* text = (*value)->if_string();
  if (text == nullptr) {
    return std::unexpected(Refusal{std::string(key), "Input should be a valid string"});
  }
  return std::string_view(text->data(), text->size());
}

}  // namespace pensieve::api
