#include "kernels/backends.h"

namespace nsa::cpu {

void AppendTokens(const AppendArgs& args, const Stream& stream) {
  cpu::StoreProjections(args.store, stream);
  cpu::CompressRows(args.compress, stream);
}

}  // namespace nsa::cpu
