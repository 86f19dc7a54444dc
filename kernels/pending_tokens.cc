#include "kernels/pending_tokens.h"

#include "kernels/backends.h"
#include "kernels/checks.h"

namespace nsa {

void TakePendingTokens(const PendingTokensArgs& args, const Stream& stream) {
  NSA_CHECK_SHAPE(args.ids, {-1});
  NSA_CHECK_SHAPE(args.sampled, {-1});
  CheckDType(args.ids, DType::kI32, "ids");
  CheckDType(args.sampled, DType::kI32, "sampled");
  NSA_DISPATCH(TakePendingTokens, args, stream);
}

}  // namespace nsa
