#include "kernels/backends.h"

namespace nsa::cpu {

void TakePendingTokens(const PendingTokensArgs& args, const Stream& /*stream*/) {
  auto* ids = args.ids.data<int32_t>();
  const auto* sampled = args.sampled.data<int32_t>();
  for (int64_t t = 0; t < args.ids.dim(0); ++t) {
    if (ids[t] >= 0) continue;
    const int64_t row = -1 - static_cast<int64_t>(ids[t]);
    NSA_CHECK_LT(row, args.sampled.dim(0));
    ids[t] = sampled[row];
  }
}

}  // namespace nsa::cpu
