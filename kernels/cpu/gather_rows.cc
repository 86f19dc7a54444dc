#include <algorithm>
#include <cstring>

#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"

namespace nsa::cpu {
namespace {

// Elements below which a second thread costs more than it saves.
constexpr int64_t kMinElements = 1 << 13;

}  // namespace

void GatherRows(const GatherRowsArgs& args, const Stream& stream) {
  const int64_t dim = args.x.dim(1);
  const int64_t min_rows = (kMinElements + dim) / std::max<int64_t>(1, dim);
  const int32_t* indices = args.indices.data<int32_t>();
  ParallelForRows(stream, args.indices.dim(0), min_rows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      NSA_CHECK(indices[row] >= 0 && indices[row] < args.x.dim(0))
          << "index " << indices[row] << " of " << args.x.dim(0);
      std::memcpy(args.out.data<float>() + row * dim, args.x.data<float>() + indices[row] * dim,
                  static_cast<size_t>(dim) * sizeof(float));
    }
  });
}

}  // namespace nsa::cpu
