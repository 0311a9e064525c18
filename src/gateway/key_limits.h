// How much each API key uses now and has used today, and whether that is within its limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "api/error.h"
#include "base/clock.h"
#include "base/error.h"
#include "gateway/access.h"

namespace pensieve::gateway {

/// Counts by the name of the key; a server without keys has one name, the empty one, and no limit.
/// Tokens are those that were computed: input that was found in a cache is free. A day is one in
/// UTC; what was used of it outlives the server in gateway/key_use_file.
///
/// A request may pass the limit of tokens while it runs, as nobody knows before how long its answer
/// is; the next one is refused then.
///
/// Thread-safety: the io thread only.
class KeyLimits {
 public:
  explicit KeyLimits(std::function<WallTime()> wall) : wall_(std::move(wall)) {}

  /// Keeps one request counted as running for as long as it lives; the limits must outlive it.
  class [[nodiscard]] Running {
   public:
    explicit Running(std::uint32_t& count) : count_(&count) { ++*count_; }
    Running(Running&& other) noexcept : count_(std::exchange(other.count_, nullptr)) {}
    Running& operator=(Running&&) = delete;
    ~Running() {
      if (count_ != nullptr) --*count_;
    }

   private:
    std::uint32_t* count_;
  };

  /// Errors: 429 with the figures. For requests at once it may be repeated, for tokens it may not:
  /// the next day is further away than clients wait.
  std::expected<Running, api::ApiError> try_run(const ApiKey& key);
  /// False once its tokens of the day are used up.
  bool has_tokens(const ApiKey& key);
  void spend(std::string_view name, std::uint64_t tokens);
  /// How often something was spent since the start.
  std::uint64_t spendings() const { return spendings_; }

  /// What was used today, by name: JSON.
  std::string text() const;
  /// Adds what `text` says of today. Errors: kInvalidArgument; nothing has changed then.
  Result<void> restore(std::string_view text);
  /// Names in such a text; one with more is an error.
  static constexpr std::size_t kNamesMax = 1024;

 private:
  struct Use {
    std::uint32_t running = 0;
    std::chrono::sys_days day{};
    std::uint64_t tokens = 0;  // Of that day.
  };
  /// As of today.
  Use& use_of(std::string_view name);

  const std::function<WallTime()> wall_;
  std::map<std::string, Use, std::less<>> uses_;  // Of keys in the settings, and of restore().
  std::uint64_t spendings_ = 0;
};

}  // namespace pensieve::gateway
