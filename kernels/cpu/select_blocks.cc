#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cpu/importance.h"
#include "kernels/cpu/parallel.h"

namespace nsa::cpu {
namespace {

// Blocks of one importance task when the threads share a token.
constexpr int64_t kBlocksPerTask = 64;

struct Item {
  int64_t token, kv_head, position, num_blocks;
};

Item GetItem(const SelectArgs& args, int64_t item_idx) {
  const int64_t num_kv_heads = args.rows.num_kv_heads();
  const int64_t token = item_idx / num_kv_heads;
  const int64_t position = args.tokens.position.data<int32_t>()[token];
  return {token, item_idx % num_kv_heads, position,
          position < 0 ? 0 : position / args.shape.block_tokens + 1};
}

// True if some block has to be left out, so that importance decides.
bool NeedsImportance(const SelectArgs& args, const Item& item) {
  return item.num_blocks > args.shape.num_selected;
}

// importance[first_block .. end_block)
void ComputeImportance(const SelectArgs& args, const Item& item, int64_t first_block,
                       int64_t end_block, float* importance) {
  const TensorView& table = args.rows.table;
  const int64_t sequence = args.tokens.sequence.data<int32_t>()[item.token];
  NSA_CHECK(sequence >= 0 && sequence < table.dim(0))
      << "sequence " << sequence << " of " << table.dim(0);
  const int64_t group_size = args.q.dim(1) / args.rows.num_kv_heads();
  const int64_t head = item.token * args.q.dim(1) + item.kv_head * group_size;
  const KvRows rows{.kv = &args.rows,
                    .table = table.data<int32_t>() + sequence * table.dim(1),
                    .kv_head = item.kv_head};
  const GroupQueries queries{.q = args.q.data<float>() + head * args.q.dim(2),
                             .lse = args.lse.data<float>() + head,
                             .num_heads = group_size,
                             .num_rows = args.shape.NumRows(item.position + 1),
                             .softmax_scale = args.softmax_scale};
  BlockImportance({.shape = args.shape,
                   .rows = rows,
                   .queries = queries,
                   .first_block = first_block,
                   .end_block = end_block,
                   .importance = importance + first_block});
}

// Keeps the num_wanted most important of the blocks that are offered in ascending order, most
// important first.
class BestBlocks {
 public:
  BestBlocks(const float* importance, int32_t* blocks, int64_t num_wanted)
      : importance_(importance), blocks_(blocks), num_wanted_(num_wanted) {}

  void Offer(int64_t block) {
    int64_t place = num_kept_;
    if (num_kept_ == num_wanted_) {
      // On a tie the earlier, lower block stays.
      if (num_wanted_ == 0 || !(importance_[block] > importance_[blocks_[place - 1]])) return;
      --place;
    } else {
      ++num_kept_;
    }
    for (; place > 0 && importance_[block] > importance_[blocks_[place - 1]]; --place) {
      blocks_[place] = blocks_[place - 1];
    }
    blocks_[place] = static_cast<int32_t>(block);
  }

  int64_t num_kept() const { return num_kept_; }

 private:
  const float* importance_;
  int32_t* blocks_;
  int64_t num_wanted_;
  int64_t num_kept_ = 0;
};

void ChooseBlocks(const SelectArgs& args, const Item& item, const float* importance) {
  const NsaShape& shape = args.shape;
  const int64_t num_kv_heads = args.rows.num_kv_heads();
  int32_t* blocks =
      args.blocks.data<int32_t>() + (item.token * num_kv_heads + item.kv_head) * shape.num_selected;
  int64_t num_chosen = 0;
  if (!NeedsImportance(args, item)) {
    for (; num_chosen < item.num_blocks; ++num_chosen) {
      blocks[num_chosen] = static_cast<int32_t>(num_chosen);
    }
  } else {
    const int64_t own = item.num_blocks - 1;
    for (int64_t j = 0; j < item.num_blocks; ++j) {
      if (shape.IsForced(j, own)) blocks[num_chosen++] = static_cast<int32_t>(j);
    }
    BestBlocks best(importance, blocks + num_chosen, shape.num_selected - num_chosen);
    for (int64_t j = 0; j < item.num_blocks; ++j) {
      if (!shape.IsForced(j, own)) best.Offer(j);
    }
    num_chosen += best.num_kept();
    std::sort(blocks, blocks + num_chosen);
  }
  std::fill(blocks + num_chosen, blocks + shape.num_selected, -1);
}

void CheckScratch(const SelectArgs& args, int num_threads) {
  const int64_t num_items = args.tokens.num_tokens() * args.rows.num_kv_heads();
  for (int64_t i = 0; i < num_items; i += args.rows.num_kv_heads()) {
    const Item item = GetItem(args, i);
    NSA_CHECK(!NeedsImportance(args, item) || item.num_blocks <= args.scratch.dim(1))
        << item.num_blocks << " blocks, scratch " << args.scratch.ToString();
  }
  NSA_CHECK_GE(args.scratch.dim(0), num_threads);
}

}  // namespace

void SelectBlocks(const SelectArgs& args, const Stream& stream) {
  const int num_threads = NumThreads(stream);
  const int64_t num_items = args.tokens.num_tokens() * args.rows.num_kv_heads();
  CheckScratch(args, num_threads);
  const auto scratch = [&](int64_t row) {
    return args.scratch.data<float>() + row * args.scratch.dim(1);
  };
  if (num_items >= num_threads) {
    ParallelFor(stream, num_items, [&](int64_t item_idx, int worker) {
      const Item item = GetItem(args, item_idx);
      if (NeedsImportance(args, item)) {
        ComputeImportance(args, item, 0, item.num_blocks, scratch(worker));
      }
      ChooseBlocks(args, item, scratch(worker));
    });
    return;
  }
  // Fewer items than threads: they share each item's blocks, whose importance nobody else writes.
  for (int64_t item_idx = 0; item_idx < num_items; ++item_idx) {
    const Item item = GetItem(args, item_idx);
    if (NeedsImportance(args, item)) {
      const int64_t num_tasks = (item.num_blocks + kBlocksPerTask - 1) / kBlocksPerTask;
      ParallelFor(stream, num_tasks, [&](int64_t task, int) {
        ComputeImportance(args, item, task * kBlocksPerTask,
                          std::min(item.num_blocks, (task + 1) * kBlocksPerTask), scratch(0));
      });
    }
    ChooseBlocks(args, item, scratch(0));
  }
}

}  // namespace nsa::cpu
