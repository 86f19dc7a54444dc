#pragma once
// Steps of SparseAttention on a device and what they should give.

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/nsa.h"
#include "tests/kernels/attention_world.h"
#include "tests/kernels/geometries.h"
#include "tests/kernels/step.h"
#include "tests/support/test_device.h"

namespace nsa::testing {

struct Outputs {
  Tensor out;     // [T, H, d_v] activation
  Tensor blocks;  // [T, K, num_selected]
  // Those of the tokens of these numbers.
  Outputs Pick(const std::vector<int64_t>& tokens) const;
};

using StepRunner = std::function<void(OnDevice&, const SparseAttentionArgs&)>;
// Runs the step by run(on, args), if there is one, else by SparseAttention.
Outputs RunStep(const AttentionWorld& world, const Step& step, ThreadPool* threads,
                const StepRunner& run = {});

enum class Of : uint8_t { kValues, kMagnitudes };

// The branches on the CPU, the selected one over `blocks`, and their combination; or the same of
// the values' magnitudes.
Tensor Combined(const AttentionWorld& world, const Step& step, const Tensor& blocks,
                Of of = Of::kValues);

// With 16-bit activations a kernel may round weights, what they add up to, and the output, each by
// half a unit in the last place: that bounds every error. StepTolerance they leave rarely.
void CheckOutputs(const AttentionWorld& world, const Step& step, const Outputs& outputs);
void CheckBlocks(const AttentionWorld& world, const Step& step, const Tensor& blocks);

// On all devices of the build.
std::vector<Geometry> StepGeometries();

class SparseAttentionTest : public ::testing::TestWithParam<Geometry> {
 protected:
  void SetUp() override {
    if (!HasDevice(GetParam().device)) GTEST_SKIP() << "this machine has no GPU";
  }
  // Longer than the selection, so that importance decides.
  static int64_t Long() {
    return (GetParam().shape.num_selected + 5) * GetParam().shape.block_tokens + 7;
  }
};

}  // namespace nsa::testing
