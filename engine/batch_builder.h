#pragma once
// BatchBuilder: a step's plan as the arrays that an executor reads.

#include <cstdint>

#include "engine/batch.h"
#include "engine/scheduler.h"

namespace nsa {

// Sequence s of the batch is chunk s of the plan; the rows of a chunk are those of the tokens
// that it scores, then that of the token that it samples. The
// position of a row is that of the token it samples, so a draw does not depend on scheduling. A
// token that the step in flight samples is named by its row there.
// Keeps its arrays from step to step: the batch is valid until the next Build.
class BatchBuilder {
 public:
  explicit BatchBuilder(const ExecutorLimits& limits);
  const Batch& Build(const StepPlan& plan);
  // The edits that the batch built last, of this plan, leaves open; the tokens before it are known
  // by now. A sequence that has ended meanwhile has none. Valid until the next call.
  const RowEdits& BuildEdits(const StepPlan& plan);

 private:
  void AddTokens(const ScheduledChunk& chunk, int32_t sequence_idx);
  void AddTiles(const ScheduledChunk& chunk, int32_t sequence_idx);
  void AddPages(const Sequence& sequence);
  void AddRecentPages(const Sequence& sequence);
  void AddScoredRows(const ScheduledChunk& chunk);
  void AddSampledRow(const ScheduledChunk& chunk);
  void AddEdits(const Sequence& sequence);

  Batch batch_;
  RowEdits edits_;
};

}  // namespace nsa
