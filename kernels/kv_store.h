#pragma once
// Writes a step's new K and V rows into the cache.

#include "kernels/device.h"
#include "kernels/paged_kv.h"

namespace nsa {

struct StoreKvArgs {
  TokenMap tokens;
  TensorView k;  // [T, K, d_k] f32
  TensorView v;  // [T, K, d_v] f32
  PagedKv kv;    // out: row `position` of each token's sequence, rounded to the cache's dtype
};
void StoreKv(const StoreKvArgs& args, const Stream& stream);

}  // namespace nsa
