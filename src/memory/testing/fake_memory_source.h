#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "memory/memory_source.h"

namespace pensieve::memory {

/// Reports what the test last set, as often as asked. A new fake fails, like a source not set up.
class FakeMemorySource final : public MemorySource {
 public:
  /// On a machine of 16 GiB, or just large enough.
  void set_available(Bytes available) {
    set({available, available > 16_GiB ? available : 16_GiB, "machine"});
  }
  void set(Reading reading) { next_ = std::move(reading); }
  void fail(std::string why) { next_ = unavailable(std::move(why)); }

  /// How often read() was called.
  std::uint64_t reads() const { return reads_; }

  Result<Reading> read() override {
    ++reads_;
    return next_;
  }

 private:
  static std::unexpected<Error> unavailable(std::string why) {
    return pensieve::fail(Code::kUnavailable, std::move(why));
  }

  Result<Reading> next_ = unavailable("fake memory source: nothing set");
  std::uint64_t reads_ = 0;
};

}  // namespace pensieve::memory
