#include "kernels/cpu/attention.h"

#include <algorithm>
#include <array>
#include <limits>

#include "kernels/cpu/attend.h"
#include "kernels/cpu/parallel.h"

namespace nsa::cpu {
namespace {

// How a batch is cut: a task is a block of tokens times a piece of one group's query heads.
// Neighbouring tokens of a sequence share the transposed keys, so blocks are as large as the
// threads' need for tasks permits.
struct TaskShape {
  int64_t heads_per_task;
  int64_t tasks_per_group;
  int64_t tokens_per_task;
};

TaskShape ChooseTaskShape(int64_t num_tokens, int64_t num_kv_heads, int64_t group_size,
                          int num_threads) {
  constexpr int64_t kMinHeadsPerTask = 4, kTasksPerThread = 4;
  const int64_t num_groups = std::max<int64_t>(1, num_tokens * num_kv_heads);
  // A group is shared when the batch alone cannot keep the threads busy, or when it is too large.
  const int64_t wanted_pieces = (num_threads + num_groups - 1) / num_groups;
  const int64_t heads = std::clamp((group_size + wanted_pieces - 1) / wanted_pieces,
                                   std::min(group_size, kMinHeadsPerTask), kMaxTaskQueries);
  const int64_t pieces = (group_size + heads - 1) / heads;
  const int64_t tokens = std::clamp<int64_t>(num_groups * pieces / (num_threads * kTasksPerThread),
                                             1, kMaxTaskQueries / heads);
  return {heads, pieces, tokens};
}

// Collects the queries of neighbouring tokens that read the same rows and attends them together.
class QueryTask {
 public:
  QueryTask(const AttentionOperands& operands, int64_t kv_head)
      : operands_(operands), kv_head_(kv_head) {}

  void Add(int64_t token, int64_t first_head, int64_t num_heads, VisibleFn visible) {
    const int64_t position = operands_.tokens.position.data<int32_t>()[token];
    VisibleRows seen;
    if (position >= 0) {
      seen = visible(token, position, kv_head_);
      StartRun(operands_.tokens.sequence.data<int32_t>()[token], seen.chosen, num_heads);
    } else if (num_queries_ + num_heads > kMaxTaskQueries) {
      Flush();
    }
    for (int64_t head = first_head; head < first_head + num_heads; ++head) {
      const int64_t row = token * operands_.q.dim(1) + head;
      queries_[num_queries_++] = {.q = operands_.q.data<float>() + row * operands_.q.dim(2),
                                  .out = operands_.out.data<float>() + row * operands_.out.dim(2),
                                  .lse = operands_.lse.data<float>() + row,
                                  .begin = seen.begin,
                                  .end = seen.end};
    }
  }

  void Flush() {
    const PagedKv& kv = operands_.kv;
    const KvRows rows{
        .kv = &kv,
        .table = kv.table.data<int32_t>() + std::max<int64_t>(0, sequence_) * kv.table.dim(1),
        .chosen = chosen_,
        .kv_head = kv_head_};
    if (num_queries_ > 0) Attend(rows, {queries_.data(), num_queries_}, operands_.softmax_scale);
    num_queries_ = 0;
  }

 private:
  // Flushes if the queries to come read other rows than those collected, or do not fit.
  void StartRun(int64_t sequence, const int32_t* chosen, int64_t num_heads) {
    NSA_CHECK(sequence >= 0 && sequence < operands_.kv.table.dim(0))
        << "sequence " << sequence << " of " << operands_.kv.table.dim(0);
    const bool same_rows = sequence == sequence_ && chosen == chosen_;
    if (!same_rows || num_queries_ + num_heads > kMaxTaskQueries) Flush();
    sequence_ = sequence;
    chosen_ = chosen;
  }

  const AttentionOperands& operands_;
  const int64_t kv_head_;
  int64_t sequence_ = -1;
  const int32_t* chosen_ = nullptr;
  size_t num_queries_ = 0;
  std::array<Query, kMaxTaskQueries> queries_;
};

}  // namespace

void AttendBatch(const AttentionOperands& operands, VisibleFn visible, const Stream& stream) {
  const int64_t num_tokens = operands.tokens.num_tokens();
  const int64_t num_kv_heads = operands.kv.num_kv_heads();
  const int64_t group_size = operands.q.dim(1) / num_kv_heads;
  const TaskShape shape = ChooseTaskShape(num_tokens, num_kv_heads, group_size, NumThreads(stream));
  const int64_t tasks_per_block = num_kv_heads * shape.tasks_per_group;
  const int64_t num_blocks = (num_tokens + shape.tokens_per_task - 1) / shape.tokens_per_task;
  ParallelFor(stream, num_blocks * tasks_per_block, [&](int64_t item, int) {
    // Long contexts come last in a prefill; started first, they do not leave a thread alone at the
    // end.
    const int64_t block = num_blocks - 1 - item / tasks_per_block;
    const int64_t kv_head = item % tasks_per_block / shape.tasks_per_group;
    const int64_t first = item % shape.tasks_per_group * shape.heads_per_task;
    const int64_t num_heads = std::min(shape.heads_per_task, group_size - first);
    QueryTask task(operands, kv_head);
    const int64_t end = std::min(num_tokens, (block + 1) * shape.tokens_per_task);
    for (int64_t token = block * shape.tokens_per_task; token < end; ++token) {
      task.Add(token, kv_head * group_size + first, num_heads, visible);
    }
    task.Flush();
  });
}

}  // namespace nsa::cpu
