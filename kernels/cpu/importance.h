#pragma once
// Importance of selection blocks for the queries of one token and KV head.

#include <cstdint>

#include "kernels/cpu/attend.h"
#include "kernels/nsa_shape.h"

namespace nsa::cpu {

// The query heads of one token and KV head.
struct GroupQueries {
  const float* q = nullptr;    // [num_heads, d_k]
  const float* lse = nullptr;  // [num_heads]
  int64_t num_heads = 0;
  int64_t num_rows = 0;  // visible compressed rows
  float softmax_scale = 0;
};

struct ImportanceArgs {
  const NsaShape& shape;
  KvRows rows;  // compressed rows
  GroupQueries queries;
  int64_t first_block, end_block;
  float* importance;  // out: [end_block - first_block]
};
// Importance of blocks [first_block, end_block): docs/nsa.md, Selection. The same bits however a
// token's blocks are divided over calls: per row the heads are summed in ascending order, per block
// the rows.
void BlockImportance(const ImportanceArgs& args);

}  // namespace nsa::cpu
