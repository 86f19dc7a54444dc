#include "base/tensor_view.h"

#include <vector>

#include "gtest/gtest.h"

namespace nsa {
namespace {

TEST(TensorViewTest, KnowsItsShapeAndStrides) {
  std::vector<float> values(24);
  const TensorView view(values.data(), DType::kF32, {2, 3, 4});
  EXPECT_EQ(view.num_elements(), 24);
  EXPECT_EQ(view.num_bytes(), 96);
  EXPECT_EQ(view.stride(0), 12);
  EXPECT_EQ(view.stride(2), 1);
  EXPECT_TRUE(view.HasShape({2, -1, 4}));
  EXPECT_FALSE(view.HasShape({2, 3}));
  EXPECT_FALSE(view.HasShape({2, 3, 5}));
  EXPECT_EQ(view.ToString(), "f32[2, 3, 4]");
}

TEST(TensorViewTest, SliceAndReshapeShareTheData) {
  std::vector<int32_t> values = {0, 1, 2, 3, 4, 5};
  const TensorView view(values.data(), DType::kI32, {3, 2});
  EXPECT_EQ(view.Slice(1, 2).data<int32_t>()[0], 2);
  EXPECT_EQ(view.Slice(3, 0).num_elements(), 0);
  EXPECT_EQ(view.Reshape({6}).data<int32_t>()[5], 5);
}

TEST(TensorViewDeathTest, MisuseIsFatalWithTheShapes) {
  std::vector<float> values(6);
  const TensorView view(values.data(), DType::kF32, {3, 2});
  EXPECT_DEATH(view.Slice(2, 2), "rows 2\\+2 of f32\\[3, 2\\]");
  EXPECT_DEATH(view.data<int32_t>(), "holds f32");
  EXPECT_DEATH(view.Reshape({7}), "check failed");
  EXPECT_DEATH(NSA_CHECK_SHAPE(view, {3, 3}), "view is f32\\[3, 2\\]");
}

}  // namespace
}  // namespace nsa
