#include "engine/runtime/workspace.h"

#include "gtest/gtest.h"

namespace nsa {
namespace {

TEST(WorkspaceTest, HandsOutAlignedTensorsOneAfterAnother) {
  Workspace workspace(1024);
  const TensorView a = workspace.Take(DType::kBF16, {3, 5});
  const TensorView b = workspace.Take(DType::kF32, {1});
  EXPECT_TRUE(a.HasShape({3, 5}));
  EXPECT_EQ(a.dtype(), DType::kBF16);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.raw()) % 64, 0U);
  EXPECT_EQ(static_cast<char*>(b.raw()) - static_cast<char*>(a.raw()), 64);  // 30 bytes, rounded
  EXPECT_EQ(workspace.used_bytes(), 128);
}

TEST(WorkspaceTest, AScopeGivesBackWhatWasTakenInIt) {
  Workspace workspace(256);
  workspace.Take(DType::kF32, {16});
  void* inner = nullptr;
  {
    const Workspace::Scope scope(workspace);
    inner = workspace.Take(DType::kF32, {48}).raw();
    EXPECT_EQ(workspace.used_bytes(), 256);
  }
  EXPECT_EQ(workspace.used_bytes(), 64);
  EXPECT_EQ(workspace.Take(DType::kF32, {1}).raw(), inner);
}

TEST(WorkspaceDeathTest, RunningOutIsAProgrammerError) {
  Workspace workspace(64);
  EXPECT_DEATH(workspace.Take(DType::kF32, {17}), "f32\\[17\\]");
}

}  // namespace
}  // namespace nsa
