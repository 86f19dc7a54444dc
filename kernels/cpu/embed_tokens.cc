#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"

namespace nsa::cpu {

void EmbedTokens(const EmbedArgs& args, const Stream& stream) {
  const int64_t num_inputs = args.weight.num_inputs;
  const int32_t* ids = args.ids.data<int32_t>();
  DispatchFloat(args.weight.data.dtype(), [&]<typename T>() {
    ParallelForRows(stream, args.ids.dim(0), /*min_rows=*/4, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        NSA_CHECK(ids[row] >= 0 && ids[row] < args.weight.num_outputs)
            << "id " << ids[row] << " of " << args.weight.num_outputs;
        const T* column = args.weight.data.data<T>() + PackedIndex(args.weight, ids[row], 0);
        float* out = args.out.data<float>() + row * num_inputs;
        for (int64_t i = 0; i < num_inputs; ++i) {
          out[i] = static_cast<float>(column[i * kPanelOutputs]);
        }
      }
    });
  });
}

}  // namespace nsa::cpu
