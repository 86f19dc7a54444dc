#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"

namespace nsa::cpu {

void Linear(const LinearArgs& args, const Stream& stream) {
  const int64_t num_tokens = args.x.dim(0), num_inputs = args.x.dim(1);
  const int64_t num_outputs = args.weight.num_outputs;
  const float* x = args.x.data<float>();
  float* out = args.out.data<float>();
  DispatchFloat(args.weight.data.dtype(), [&]<typename T>() {
    const T* w = args.weight.data.data<T>();
    ParallelForRows(stream, num_outputs, kPanelOutputs, [&](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < num_tokens; ++t) {
        for (int64_t o = begin; o < end; ++o) {
          float sum = 0;
          for (int64_t i = 0; i < num_inputs; ++i) {
            sum += x[t * num_inputs + i] * static_cast<float>(w[PackedIndex(args.weight, o, i)]);
          }
          out[t * num_outputs + o] = sum;
        }
      }
    });
  });
}

}  // namespace nsa::cpu
