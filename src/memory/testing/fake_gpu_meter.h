#pragma once

#include <optional>
#include <string>
#include <utility>

#include "memory/gpu_meter.h"

namespace pensieve::memory {

/// Reports what the test last set. A new fake has no memory of its own, like an integrated GPU.
class FakeGpuMeter final : public GpuMeter {
 public:
  void set(Bytes free, Bytes total) { next_ = DeviceMemory{free, total}; }
  void fail(std::string why) { next_ = pensieve::fail(Code::kUnavailable, std::move(why)); }

  std::string device() const override { return "gpu 0 (fake)"; }
  Result<std::optional<DeviceMemory>> device_memory() override { return next_; }

 private:
  Result<std::optional<DeviceMemory>> next_;
};

}  // namespace pensieve::memory
