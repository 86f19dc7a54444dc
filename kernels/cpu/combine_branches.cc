#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"

namespace nsa::cpu {
namespace {

float Sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }

}  // namespace

void CombineBranches(const CombineArgs& args, const Stream& stream) {
  const int64_t num_rows = args.out.dim(0) * args.out.dim(1);
  const int64_t d_v = args.out.dim(2);
  const float* gates = args.gate_logits.data<float>();
  const float* cmp = args.cmp.data<float>();
  const float* sel = args.sel.data<float>();
  const float* win = args.win.data<float>();
  float* out = args.out.data<float>();
  constexpr int64_t kMinRows = 64;
  ParallelForRows(stream, num_rows, kMinRows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float gate_cmp = Sigmoid(gates[row * 3]);
      const float gate_sel = Sigmoid(gates[row * 3 + 1]);
      const float gate_win = Sigmoid(gates[row * 3 + 2]);
      for (int64_t i = row * d_v; i < (row + 1) * d_v; ++i) {
        out[i] = gate_cmp * cmp[i] + gate_sel * sel[i] + gate_win * win[i];
      }
    }
  });
}

}  // namespace nsa::cpu
