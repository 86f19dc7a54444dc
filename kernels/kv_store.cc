#include "kernels/kv_store.h"

#include "kernels/backends.h"
#include "kernels/checks.h"

namespace nsa {

void StoreKv(const StoreKvArgs& args, const Stream& stream) {
  CheckTokens(args.tokens);
  CheckPagedKv(args.kv);
  const int64_t num_tokens = args.tokens.num_tokens();
  NSA_CHECK_SHAPE(args.k, {num_tokens, args.kv.num_kv_heads(), args.kv.d_k()});
  NSA_CHECK_SHAPE(args.v, {num_tokens, args.kv.num_kv_heads(), args.kv.d_v()});
  NSA_DISPATCH(StoreKv, args, stream);
}

}  // namespace nsa
