#include "engine/runtime/uploader.h"

#include <random>

#include "gtest/gtest.h"
#include "tests/support/devices.h"

namespace nsa {
namespace {

class UploaderTest : public testing::TestWithParam<TestDevice> {
 protected:
  std::vector<uint8_t> Download(const DeviceBuffer& buffer) const {
    PinnedBuffer host(buffer.num_bytes(), device_.get());
    device_->Download(buffer.data(), host.data(), buffer.num_bytes());
    device_->Mark(0);
    EXPECT_TRUE(device_->Await(0).ok());
    return {host.data(), host.data() + host.num_bytes()};
  }
  const std::shared_ptr<Device> device_ = GetParam().Open();
};

std::vector<uint8_t> RandomBytes(int64_t num_bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> bytes(num_bytes);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// Sizes around the pinned buffer's pieces, all uploads before the first wait.
TEST_P(UploaderTest, CopiesAnySize) {
  constexpr int64_t kPiece = 8 << 20;
  std::vector<std::vector<uint8_t>> sources;
  std::vector<DeviceBuffer> buffers;
  Uploader uploader(device_.get());
  for (const int64_t num_bytes : {int64_t{1}, int64_t{1000}, kPiece, kPiece + 1, 3 * kPiece - 5}) {
    sources.push_back(RandomBytes(num_bytes, static_cast<uint32_t>(num_bytes)));
    buffers.emplace_back(num_bytes, device_.get());
    std::vector<uint8_t> passing = sources.back();  // may go once Copy has returned
    uploader.Copy(passing.data(), buffers.back().data(), num_bytes);
    std::fill(passing.begin(), passing.end(), uint8_t{0});
  }
  ASSERT_TRUE(uploader.Finish().ok());
  for (size_t i = 0; i < sources.size(); ++i) EXPECT_TRUE(Download(buffers[i]) == sources[i]) << i;
}

TEST_P(UploaderTest, CanBeUsedAgain) {
  Uploader uploader(device_.get());
  const DeviceBuffer buffer(64, device_.get());
  for (uint32_t round = 0; round < 3; ++round) {
    const std::vector<uint8_t> bytes = RandomBytes(64, round);
    uploader.Copy(bytes.data(), buffer.data(), 64);
    ASSERT_TRUE(uploader.Finish().ok());
    EXPECT_EQ(Download(buffer), bytes);
  }
}

TEST(CopyToDeviceTest, WithoutADeviceTheHostHasThem) {
  const float values[] = {1, 2, 3};
  const DeviceBuffer buffer = CopyToDevice(values, sizeof(values), nullptr);
  EXPECT_EQ(static_cast<const float*>(buffer.data())[2], 3.0F);
}

INSTANTIATE_TEST_SUITE_P(Devices, UploaderTest, testing::ValuesIn(TestDevices()),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace nsa
