// Memory that the scripted engine really takes, so that limits, meters and the kernel see it.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <optional>
#include <utility>

#include "base/bytes.h"

namespace pensieve::engine {

/// Anonymous memory that is really taken: every page is written.
class TakenMemory {
 public:
  /// Empty where the system refuses.
  static std::optional<TakenMemory> try_take(Bytes size) {
    if (size.count() == 0) return TakenMemory(nullptr, 0);
    void* const start =
        mmap(nullptr, size.count(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return std::nullopt;
    std::memset(start, 0x5A, size.count());
    return TakenMemory(start, size.count());
  }
  TakenMemory(TakenMemory&& other) noexcept
      : start_(std::exchange(other.start_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  TakenMemory& operator=(TakenMemory&& other) noexcept {
    std::swap(start_, other.start_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~TakenMemory() {
    if (start_ != nullptr) munmap(start_, size_);
  }
  Bytes size() const { return Bytes(size_); }

 private:
  TakenMemory(void* start, std::size_t size) : start_(start), size_(size) {}

  void* start_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace pensieve::engine
