#pragma once
// From a layer's packed projections to what attention reads: rotated queries, gate logits, and the
// step's K and V rows in the cache.

#include <array>
#include <cstdint>

#include "kernels/device.h"
#include "kernels/paged_kv.h"

namespace nsa {

// One stream of K and V projections and the cache that keeps it.
struct KvStream {
  int64_t k_column = 0;  // K's heads, K * d_k columns
  int64_t v_column = 0;  // V's heads, K * d_v columns
  bool rotate_k = true;  // whether RoPE is applied to the keys
  PagedKv kv;            // out: row `position` of each token's sequence, rounded to its dtype
};

// RoPE rotates pairs (c, c + d_k/2) of a head by position * inv_freq[c]. Padding: q and gate_logits
// are 0, nothing is stored.
struct StoreProjectionsArgs {
  static constexpr int64_t kMaxStreams = 3;

  TokenMap tokens;
  TensorView packed;         // [T, columns] activation dtype
  TensorView inv_freq;       // [d_k / 2] f32
  int64_t q_column = 0;      // the query heads, H * d_k columns
  int64_t gates_column = 0;  // read where gate_logits is not empty: H * 3 columns
  int64_t num_streams = 0;
  std::array<KvStream, kMaxStreams> streams;  // of one d_k, d_v and number of heads
  TensorView q;                               // out: [T, H, d_k] activation dtype, rotated
  TensorView gate_logits;                     // out: [T, H, 3] f32, or empty
};
void StoreProjections(const StoreProjectionsArgs& args, const Stream& stream);

}  // namespace nsa
