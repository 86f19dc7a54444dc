#include "engine/runtime/copy.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;

TEST(CopyColumnsTest, CopiesEveryRowsPart) {
  ThreadPool threads(2);
  std::vector<float> source = {0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23};
  std::vector<float> destination(6, -1);
  CopyColumns({source.data(), DType::kF32, {3, 4}}, 1, {destination.data(), DType::kF32, {3, 2}},
              {.threads = &threads});
  EXPECT_THAT(destination, ElementsAre(1, 2, 11, 12, 21, 22));
}

TEST(CopyColumnsDeathTest, ColumnsBeyondTheSourceAreAProgrammerError) {
  ThreadPool threads(1);
  std::vector<float> values(8);
  const TensorView source(values.data(), DType::kF32, {2, 2});
  const TensorView destination(values.data() + 4, DType::kF32, {2, 2});
  EXPECT_DEATH(CopyColumns(source, 1, destination, {.threads = &threads}), "3 against 2");
}

TEST(CopyToDeviceTest, FillsTheFront) {
  std::vector<int32_t> device(4, -1);
  const std::vector<int32_t> values = {7, 8};
  CopyToDevice(values, {device.data(), DType::kI32, {4}}, {});
  CopyToDevice({}, {device.data(), DType::kI32, {4}}, {});
  EXPECT_THAT(device, ElementsAre(7, 8, -1, -1));
}

}  // namespace
}  // namespace nsa
