#include "engine/mask_worker.h"

#include <optional>

#include "gtest/gtest.h"
#include "tests/support/byte_constraint.h"

namespace nsa {
namespace {

using Outputs = MaskWorker::Outputs;

// A constraint none of whose masks is ready.
std::shared_ptr<const CompiledConstraint> Unprepared(const std::string& regex) {
  ConstraintLimits limits;
  limits.warm_up_time = absl::ZeroDuration();
  return CompileByteConstraint({.kind = ConstraintKind::kRegex, .source = regex}, limits);
}

Outputs OutputsOf(const std::shared_ptr<const CompiledConstraint>& constraint, int num_outputs) {
  Outputs outputs;
  for (int i = 0; i < num_outputs; ++i) {
    outputs.push_back(
        std::make_shared<ConstrainedOutput>(constraint, std::vector<int32_t>(), /*min_tokens=*/0));
  }
  return outputs;
}

void ExpectLetters(ConstrainedOutput& output) {
  std::vector<int32_t> words(9);
  output.CopyTo(words);
  EXPECT_EQ(words, (std::vector<int32_t>{0, 0, 0, 0x07fffffe, 0, 0, 0, 0, 0}));
  EXPECT_TRUE(output.MaskStatus().ok());
}

void AdvanceAll(const Outputs& outputs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    outputs[i]->Advance(static_cast<int32_t>('a' + i));
  }
}

TEST(MaskWorkerTest, ComputesTheMasksOfManyOutputsOfOneConstraint) {
  for (const auto& constraint : {ByteRegex("[a-z]{40}"), Unprepared("[a-z]{40}")}) {
    const Outputs outputs = OutputsOf(constraint, 8);
    MaskWorker worker;
    for (int step = 0; step < 40; ++step) {
      worker.Compute(outputs);
      for (const auto& output : outputs) ExpectLetters(*output);
      AdvanceAll(outputs);
    }
  }
}

TEST(MaskWorkerTest, AReaderSharesTheMasksOfSeveralConstraints) {
  Outputs outputs;
  for (int i = 0; i < 8; ++i) {
    outputs.push_back(OutputsOf(Unprepared("[a-z]{40}"), 1).front());
  }
  MaskWorker worker;
  for (int step = 0; step < 40; ++step) {
    worker.ComputeBesideReader(outputs);
    EXPECT_EQ(outputs.front().use_count(), 1);  // the reader's
    for (const auto& output : outputs) ExpectLetters(*output);
    AdvanceAll(outputs);
  }
}

TEST(MaskWorkerTest, AReaderComputesTheMasksOfOneConstraint) {
  const Outputs outputs = OutputsOf(Unprepared("[a-z]{40}"), 8);
  MaskWorker worker;
  for (int step = 0; step < 40; ++step) {
    worker.ComputeBesideReader(outputs);
    for (const auto& output : outputs) {
      EXPECT_EQ(output.use_count(), 1);  // none is the worker's
      ExpectLetters(*output);
    }
    AdvanceAll(outputs);
  }
}

TEST(MaskWorkerTest, AnOutputMayBeDroppedWhileItsMaskIsExpected) {
  std::optional<MaskWorker> worker(std::in_place);
  const auto constraint = Unprepared("[a-z]{40}");
  std::weak_ptr<ConstrainedOutput> dropped;
  for (int i = 0; i < 20; ++i) {
    const Outputs outputs = OutputsOf(constraint, 1);
    dropped = outputs.front();
    worker->Compute(outputs);
  }
  const Outputs last = OutputsOf(constraint, 1);
  worker->Compute(last);
  ExpectLetters(*last.front());
  worker.reset();
  EXPECT_TRUE(dropped.expired());
}

TEST(MaskWorkerTest, EndsWithMasksStillExpected) {
  const Outputs outputs = OutputsOf(Unprepared("[a-z]{40}"), 200);
  {
    MaskWorker worker;
    worker.Compute(outputs);
  }
  for (const auto& output : outputs) {
    EXPECT_EQ(output.use_count(), 1);
    ExpectLetters(*output);
  }
}

}  // namespace
}  // namespace nsa
