// What went wrong, as a value: std::expected<T, Error> is how an error leaves a function, and
// PENSIEVE_CHECK is for what must never happen.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <expected>
#include <string>
#include <utility>

/// An invariant that holds in every build. For faults of ours; never for input, I/O or load.
#define PENSIEVE_CHECK(condition)                                                        \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

namespace pensieve {

enum class Code : std::uint8_t {
  kInvalidArgument,  // The caller's input; never retried.
  kNotFound,
  kUnavailable,  // True now, may pass; may be retried.
  kOutOfMemory,
  kDeadlineExceeded,
  kInternal,  // A fault of ours.
};

struct Error {
  Code code = Code::kInternal;
  std::string message;  // For an operator: what we were doing, then what went wrong.
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Code code, std::string message) {
  return std::unexpected(Error{code, std::move(message)});
}

}  // namespace pensieve
