#include "kernels/backends.h"
#include "kernels/cpu/attend.h"
#include "kernels/cpu/parallel.h"

namespace nsa::cpu {
namespace {

template <typename T>
void StoreRow(const float* from, int64_t d, T* to) {
  for (int64_t c = 0; c < d; ++c) to[c] = static_cast<T>(from[c]);
}

template <typename T>
void StoreToken(const StoreKvArgs& args, int64_t token, int64_t position) {
  const PagedKv& kv = args.kv;
  const int64_t num_kv_heads = kv.num_kv_heads(), d_k = kv.d_k(), d_v = kv.d_v();
  const int64_t sequence = args.tokens.sequence.data<int32_t>()[token];
  NSA_CHECK(sequence >= 0 && sequence < kv.table.dim(0))
      << "sequence " << sequence << " of " << kv.table.dim(0);
  for (int64_t head = 0; head < num_kv_heads; ++head) {
    const KvRows rows{
        .kv = &kv, .table = kv.table.data<int32_t>() + sequence * kv.table.dim(1), .kv_head = head};
    const int64_t to = rows.CacheRow(position);
    const int64_t from = token * num_kv_heads + head;
    StoreRow(args.k.data<float>() + from * d_k, d_k, kv.k.data<T>() + to * d_k);
    StoreRow(args.v.data<float>() + from * d_v, d_v, kv.v.data<T>() + to * d_v);
  }
}

}  // namespace

void StoreKv(const StoreKvArgs& args, const Stream& stream) {
  const int32_t* positions = args.tokens.position.data<int32_t>();
  constexpr int64_t kMinTokens = 16;
  DispatchFloat(args.kv.k.dtype(), [&]<typename T>() {
    ParallelForRows(stream, args.tokens.num_tokens(), kMinTokens, [&](int64_t begin, int64_t end) {
      for (int64_t token = begin; token < end; ++token) {
        if (positions[token] >= 0) StoreToken<T>(args, token, positions[token]);
      }
    });
  });
}

}  // namespace nsa::cpu
