#include "engine/runtime/device.h"

#include <cstring>
#include <numeric>

#include "engine/runtime/memory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/devices.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(OpenDeviceTest, TheCpuIsAlwaysThere) {
  const auto device = OpenDevice({.kind = DeviceChoice::Kind::kCpu}, 3);
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)->type(), DeviceType::kCpu);
  EXPECT_EQ((*device)->description(), "CPU, 3 threads");
  EXPECT_EQ((*device)->stream().threads->num_threads(), 3);
  EXPECT_GT((*device)->total_bytes(), int64_t{64} << 20);
  EXPECT_LT((*device)->total_bytes(), int64_t{1} << 50);
  EXPECT_LE((*device)->free_bytes(), (*device)->total_bytes());
}

// This machine and build have a GPU or not; both answers are checked, each where it holds.
TEST(OpenDeviceTest, AutoTakesTheGpuOrSaysWhyNot) {
  const auto gpu = OpenDevice({.kind = DeviceChoice::Kind::kCuda}, 1);
  const auto chosen = OpenDevice({.kind = DeviceChoice::Kind::kAuto}, 1);
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  if (gpu.ok()) {
    EXPECT_EQ((*chosen)->type(), DeviceType::kCuda);
    EXPECT_THAT((*chosen)->description(), StartsWith("cuda:0, "));
  } else {
    EXPECT_EQ((*chosen)->type(), DeviceType::kCpu);
    EXPECT_EQ((*chosen)->description(),
              "CPU, 1 thread; no GPU: " + std::string(gpu.status().message()));
  }
}

TEST(OpenDeviceTest, AGpuThatIsNotThereIsAnError) {
  const auto device = OpenDevice({.kind = DeviceChoice::Kind::kCuda, .index = 4096}, 1);
  ASSERT_FALSE(device.ok());
  if (TestDevices().size() > 1) {
    EXPECT_EQ(device.status().code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(device.status().message()), HasSubstr("cuda:4096, the machine has"));
  } else {
    EXPECT_NE(device.status().code(), absl::StatusCode::kInternal);
  }
}

class DeviceTest : public testing::TestWithParam<TestDevice> {
 protected:
  const std::shared_ptr<Device> device_ = GetParam().Open();
};

TEST_P(DeviceTest, CopiesThereAndBack) {
  constexpr int64_t kBytes = 100'000;
  PinnedBuffer out(kBytes, device_.get()), in(kBytes, device_.get());
  const DeviceBuffer there(kBytes, device_.get());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(there.data()) % 256, 0U);
  for (int round = 0; round < 2 * Device::kNumMarks; ++round) {
    std::iota(out.data(), out.data() + kBytes, static_cast<uint8_t>(round));
    std::memset(in.data(), 0, kBytes);
    device_->Upload(out.data(), there.data(), kBytes);
    device_->Download(there.data(), in.data(), kBytes);
    device_->Mark(round % Device::kNumMarks);
    ASSERT_TRUE(device_->Await(round % Device::kNumMarks).ok());
    ASSERT_EQ(std::memcmp(in.data(), out.data(), kBytes), 0) << round;
  }
}

TEST_P(DeviceTest, ARecordingRepeatsItsWorkOnNewValues) {
  if (!device_->CanRecord()) {
    EXPECT_EQ(device_->type(), DeviceType::kCpu);
    return;
  }
  PinnedBuffer out(64, device_.get()), in(64, device_.get());
  const DeviceBuffer there(64, device_.get());
  device_->BeginRecording();
  device_->Upload(out.data(), there.data(), 64);
  device_->Download(there.data(), in.data(), 64);
  const std::unique_ptr<StepGraph> graph = device_->EndRecording();
  ASSERT_NE(graph, nullptr);
  for (uint8_t value : {1, 2}) {
    std::memset(out.data(), value, 64);
    graph->Launch();
    device_->Mark(0);
    ASSERT_TRUE(device_->Await(0).ok());
    EXPECT_EQ(in.data()[63], value);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DeviceTest, testing::ValuesIn(TestDevices()),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace nsa
