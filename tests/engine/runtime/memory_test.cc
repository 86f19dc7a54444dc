#include "engine/runtime/memory.h"

#include <cstring>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

TEST(DeviceBufferTest, IsAlignedAndWritable) {
  for (const int64_t num_bytes : {1, 4096, 5000, (4 << 20) + 1}) {
    const DeviceBuffer buffer(num_bytes);
    EXPECT_EQ(buffer.num_bytes(), num_bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0U);
    std::memset(buffer.data(), 1, num_bytes);
  }
}

TEST(DeviceBufferTest, MovesItsMemory) {
  DeviceBuffer a(100);
  void* data = a.data();
  DeviceBuffer b = std::move(a);
  EXPECT_EQ(b.data(), data);
  DeviceBuffer c;
  EXPECT_EQ(c.data(), nullptr);
  c = std::move(b);
  EXPECT_EQ(c.data(), data);
  EXPECT_EQ(c.num_bytes(), 100);
}

TEST(DeviceBufferTest, OfNothingHoldsNothing) { EXPECT_EQ(DeviceBuffer(0).data(), nullptr); }

TEST(CheckFreeMemoryTest, NamesBothNumbers) {
  const std::unique_ptr<Device> device = OpenHostDevice(1, "");
  EXPECT_TRUE(CheckFreeMemory("a page", 4096, *device).ok());
  const absl::Status status = CheckFreeMemory("the weights", int64_t{1} << 50, *device);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              testing::MatchesRegex("out of memory on CPU, 1 thread: the weights needs "
                                    "1048576.00 GiB, [0-9.]+ GiB are free"));
}

}  // namespace
}  // namespace nsa
