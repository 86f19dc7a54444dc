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
  const uint32_t* masks;  // null: no row has one
};

// Those of one row.
struct RowEdits {
  const LogitEdit* edits;
  int32_t num_edits;
};

// A row's mask; without words it allows every token.
struct RowMask {
  const uint32_t* words;
  int32_t num_words;
};
__device__ __forceinline__ RowMask MaskOfRow(const EditParams& params, int32_t edited_row,
                                             int32_t vocab) {
  const auto num_words = static_cast<int32_t>(NumMaskWords(vocab));
  return {.words = params.masks + int64_t{edited_row} * num_words,
          .num_words = params.masks == nullptr ? 0 : num_words};
}

// Words of a mask that a block has at a time, and their tokens.
inline constexpr int kMaskWords = 4096;
inline constexpr int32_t kMaskTokens = 32 * kMaskWords;

// kMaskWords words of a mask, from `first` on; what is beyond its end allows everything.
__device__ __forceinline__ void LoadMask(const RowMask& mask, int32_t first, uint32_t* words) {
  constexpr int kBatch = kMaskWords / kSampleThreads;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  uint32_t batch[kBatch];
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    const int32_t word = first + thread + i * kSampleThreads;
    batch[i] = ~0U;
    if (word < mask.num_words) batch[i] = mask.words[word];
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
