// How a GPU counts among the meters of a machine.
#include "memory/gpu_meter.h"

#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "memory/machine_memory.h"
#include "memory/testing/fake_gpu_meter.h"

namespace pensieve::memory {
namespace {

class MachineMeter final : public Meter {
 public:
  Result<std::optional<Reading>> read() override {
    return Reading{8_GiB, 16_GiB, std::string(kMachineMeter)};
  }
};

class GpuMeterTest : public testing::Test {
 protected:
  GpuMeterTest() {
    auto gpu = std::make_unique<FakeGpuMeter>();
    gpu_ = gpu.get();
    std::vector<std::unique_ptr<Meter>> meters;
    meters.push_back(std::make_unique<MachineMeter>());
    meters.push_back(std::move(gpu));
    source_ = std::make_unique<SmallestOf>(std::move(meters));
  }

  FakeGpuMeter* gpu_;
  std::unique_ptr<SmallestOf> source_;
};

TEST_F(GpuMeterTest, AFullGpuLimitsUsWhateverTheMachineHasLeft) {
  gpu_->set(700_MiB, 24_GiB);
  const Reading reading = source_->read().value();
  EXPECT_EQ(reading.available, 700_MiB);
  EXPECT_EQ(reading.total, 24_GiB);
  EXPECT_EQ(reading.limited_by, "gpu 0 (fake)");
}

TEST_F(GpuMeterTest, AnEmptyGpuLeavesTheMachineAsTheLimit) {
  gpu_->set(20_GiB, 24_GiB);
  EXPECT_EQ(source_->read()->limited_by, kMachineMeter);
}

TEST_F(GpuMeterTest, MemoryThatIsSharedWithTheMachineIsNotCountedTwice) {
  EXPECT_EQ(source_->read()->limited_by, kMachineMeter);
}

TEST_F(GpuMeterTest, ADriverThatDoesNotAnswerMakesTheWholeReadingFail) {
  gpu_->set(20_GiB, 24_GiB);
  gpu_->fail("injected: driver lost");
  const Result<Reading> reading = source_->read();
  ASSERT_FALSE(reading.has_value());
  EXPECT_EQ(reading.error().message, "gpu 0 (fake): injected: driver lost");
}

TEST_F(GpuMeterTest, AbsurdFiguresAreFailures) {
  gpu_->set(25_GiB, 24_GiB);
  EXPECT_FALSE(source_->read().has_value());
  gpu_->set(Bytes(), Bytes());
  EXPECT_FALSE(source_->read().has_value());
  gpu_->set(Bytes(), 24_GiB);
  EXPECT_EQ(source_->read()->available, Bytes()) << "full is not absurd";
}

}  // namespace
}  // namespace pensieve::memory
