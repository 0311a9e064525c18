// A count of bytes as its own type, so that bytes, GiB and token counts cannot be mixed up.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>

namespace pensieve {

/// A number of bytes. Never negative. 1 GiB is 2^30 bytes everywhere in this project.
class Bytes {
 public:
  constexpr Bytes() = default;
  constexpr explicit Bytes(std::uint64_t count) : count_(count) {}

  constexpr std::uint64_t count() const { return count_; }
  constexpr auto operator<=>(const Bytes&) const = default;

 private:
  std::uint64_t count_ = 0;
};

/// a - b, or zero where b is the larger. There is no operator-: an unsigned wrap-around in an
/// account of memory reads as "18 exabytes free", so each subtraction says what it does then.
constexpr Bytes saturating_sub(Bytes a, Bytes b) {
  return a > b ? Bytes(a.count() - b.count()) : Bytes();
}

/// Empty where the sum does not fit 64 bits.
constexpr std::optional<Bytes> checked_add(Bytes a, Bytes b) {
  if (a.count() > UINT64_MAX - b.count()) return std::nullopt;
  return Bytes(a.count() + b.count());
}

/// In units of 2^30 bytes, for people and for the API's `available_gb`.
constexpr double to_gb(Bytes bytes) {
  return static_cast<double>(bytes.count()) / static_cast<double>(1ULL << 30);
}

constexpr Bytes operator""_MiB(unsigned long long n) {
  return Bytes(n << 20);
}
constexpr Bytes operator""_GiB(unsigned long long n) {
  return Bytes(n << 30);
}

}  // namespace pensieve
