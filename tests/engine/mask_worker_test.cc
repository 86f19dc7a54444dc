#include "engine/mask_worker.h"

#include "gtest/gtest.h"
#include "tests/support/byte_constraint.h"

namespace nsa {
namespace {

TEST(MaskWorkerTest, ComputesTheMasksOfManyOutputsOfOneConstraint) {
  const auto constraint = ByteRegex("[a-z]{40}");
  std::vector<std::shared_ptr<ConstrainedOutput>> outputs;
  for (int i = 0; i < 8; ++i) {
    outputs.push_back(
        std::make_shared<ConstrainedOutput>(constraint, std::vector<int32_t>(), /*min_tokens=*/0));
  }
  MaskWorker worker;
  for (int step = 0; step < 40; ++step) {
    for (const auto& output : outputs) worker.Compute(output);
    for (const auto& output : outputs) {
      std::vector<int32_t> words(9);
      output->CopyTo(words);
      EXPECT_EQ(words, (std::vector<int32_t>{0, 0, 0, 0x07fffffe, 0, 0, 0, 0, 0}));
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      outputs[i]->Advance(static_cast<int32_t>('a' + i));
    }
  }
}

TEST(MaskWorkerTest, AnOutputMayBeDroppedWhileItsMaskIsExpected) {
  MaskWorker worker;
  const auto constraint = CompileByteConstraint({.kind = ConstraintKind::kJsonObject});
  std::weak_ptr<ConstrainedOutput> dropped;
  for (int i = 0; i < 20; ++i) {
    auto output =
        std::make_shared<ConstrainedOutput>(constraint, std::vector<int32_t>(), /*min_tokens=*/0);
    dropped = output;
    worker.Compute(std::move(output));
  }
  auto last =
      std::make_shared<ConstrainedOutput>(constraint, std::vector<int32_t>(), /*min_tokens=*/0);
  worker.Compute(last);
  EXPECT_TRUE(last->MaskStatus().ok());
  EXPECT_TRUE(dropped.expired());
}

TEST(MaskWorkerTest, EndsWithMasksStillExpected) {
  const auto constraint = CompileByteConstraint({.kind = ConstraintKind::kJsonObject});
  std::vector<std::shared_ptr<ConstrainedOutput>> outputs;
  {
    MaskWorker worker;
    for (int i = 0; i < 200; ++i) {
      outputs.push_back(std::make_shared<ConstrainedOutput>(constraint, std::vector<int32_t>(),
                                                            /*min_tokens=*/0));
      worker.Compute(outputs.back());
    }
  }
  EXPECT_GT(outputs.front().use_count(), 0);
  for (const auto& output : outputs) EXPECT_EQ(output.use_count(), 1);
}

}  // namespace
}  // namespace nsa
