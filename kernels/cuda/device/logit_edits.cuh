#pragma once
// The edits of the row that a block samples. They may lie in the host's memory, a microsecond or
// two away, so loads do not wait for one another where that can be helped.

#include <cstdint>

#include "kernels/cuda/device/token_cut.cuh"
#include "kernels/logit_edits.h"

namespace nsa::cuda {

// LogitEdits, as a kernel gets them.
struct EditParams {
  const int32_t* edit_end;
  const LogitEdit* edits;
  const int32_t* mask_of;
  const uint32_t* masks;
};

// Those of one row.
struct RowEdits {
  const LogitEdit* edits;
  int32_t num_edits;
  const uint32_t* mask;  // null: every token is allowed
};
__device__ __forceinline__ RowEdits EditsOfRow(const EditParams& params, int32_t edited_row,
                                               int32_t vocab) {
  const int32_t begin = edited_row == 0 ? 0 : params.edit_end[edited_row - 1];
  const int32_t end = params.edit_end[edited_row], mask = params.mask_of[edited_row];
  return {.edits = params.edits + begin,
          .num_edits = end - begin,
          .mask = mask < 0 ? nullptr : params.masks + mask * NumMaskWords(vocab)};
}

// Words of a mask that a block has at a time, and their tokens.
inline constexpr int kMaskWords = 4096;
inline constexpr int32_t kMaskTokens = 32 * kMaskWords;

// kMaskWords words of a mask of num_words, from `first` on; what is beyond its end allows
// everything.
__device__ __forceinline__ void LoadMask(const uint32_t* mask, int32_t first, int32_t num_words,
                                         uint32_t* words) {
  constexpr int kBatch = kMaskWords / kSampleThreads;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  uint32_t batch[kBatch];
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    const int32_t word = first + thread + i * kSampleThreads;
    batch[i] = mask != nullptr && word < num_words ? mask[word] : ~0U;
  }
#pragma unroll
  for (int i = 0; i < kBatch; ++i) words[thread + i * kSampleThreads] = batch[i];
}

// The edits that a block makes at a time: edit i of the batch is i * kSampleThreads behind the
// thread's first one. token -1: none.
struct EditBatch {
  static constexpr int kEdits = 4;
  static constexpr int32_t kBlockEdits = kEdits * kSampleThreads;

  LogitEdit edits[kEdits];

  __device__ __forceinline__ EditBatch(const RowEdits& row, int32_t first) {
#pragma unroll
    for (int i = 0; i < kEdits; ++i) {
      const int32_t idx = first + static_cast<int32_t>(threadIdx.x) + i * kSampleThreads;
      edits[i].token = -1;
      if (idx < row.num_edits) edits[i] = row.edits[idx];
    }
  }
};

}  // namespace nsa::cuda
