// What the prefill chain of Hopper asks for before it runs.

#include "kernels/cuda/sm90/sparse_prefill.h"

#include <gtest/gtest.h>

#include "tests/kernels/geometries.h"

namespace nsa::testing {
namespace {

// An engine takes scratch once, for its largest step: no smaller one may need more.
TEST(SparsePrefillTest, ScratchGrowsWithTheStep) {
  for (const auto& [num_seqs, num_tokens] : {std::pair{1, 65536}, {1, 8192}, {8, 8192}}) {
    SparseAttentionExtent extent{.shape = kPaperShape,
                                 .num_tokens = num_tokens,
                                 .num_seqs = num_seqs,
                                 .max_pages = 1,
                                 .num_heads = 64,
                                 .num_kv_heads = 4,
                                 .d_k = 128,
                                 .d_v = 128,
                                 .activation = DType::kBF16,
                                 .cache_dtype = DType::kBF16};
    int64_t last_bytes = 0;
    for (; extent.max_pages < 20000; extent.max_pages += 31) {
      const int64_t num_bytes = cuda::SparsePrefillScratchBytes(extent);
      EXPECT_GE(num_bytes, last_bytes) << extent.max_pages << " pages";
      last_bytes = num_bytes;
    }
    last_bytes = 0;
    for (extent.num_tokens = 1; extent.num_tokens <= num_tokens; extent.num_tokens += 509) {
      const int64_t num_bytes = cuda::SparsePrefillScratchBytes(extent);
      EXPECT_GE(num_bytes, last_bytes) << extent.num_tokens << " tokens";
      last_bytes = num_bytes;
    }
  }
}

}  // namespace
}  // namespace nsa::testing
