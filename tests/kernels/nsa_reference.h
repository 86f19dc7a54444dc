#pragma once
// docs/nsa.md once more, in double precision and without pages, tiles or batches: every row is
// tested for visibility, nothing is skipped. The kernels are compared with it.

#include <cstdint>
#include <vector>

#include "kernels/nsa.h"
#include "tests/kernels/nsa_cache.h"

namespace nsa::testing {

struct ReferenceOutput {
  std::vector<double> out;  // [d_v]
  double lse = 0;
};

// Softmax attention of one query head over the given rows of one KV head.
ReferenceOutput ReferenceAttention(const TestCache& cache, int64_t sequence, int64_t kv_head,
                                   const std::vector<int64_t>& rows, const float* q, double scale);

// Paged rows of the compressed rows that token t sees.
std::vector<int64_t> VisibleCompressedRows(const NsaShape& shape, int64_t t);
std::vector<int64_t> VisibleWindow(int64_t window_tokens, int64_t t);
std::vector<int64_t> VisibleTokens(int64_t t);
std::vector<int64_t> VisibleInBlocks(const NsaShape& shape, const std::vector<int64_t>& blocks,
                                     int64_t t);

// imp[j] of every block in [0, t / l'] for the group of heads whose queries are q [G, d_k].
std::vector<double> ReferenceImportance(const NsaShape& shape, const TestCache& rows,
                                        int64_t sequence, int64_t kv_head, int64_t t,
                                        const float* q, int64_t group_size, double scale);
// Forced blocks of token t, ascending.
std::vector<int64_t> ReferenceForced(const NsaShape& shape, int64_t t);
// The chosen blocks of token t, ascending.
std::vector<int64_t> ReferenceSelection(const NsaShape& shape, int64_t t,
                                        const std::vector<double>& importance);

}  // namespace nsa::testing
