#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cpu/linear_task.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/linear.cc"
#include "hwy/foreach_target.h"  // before highway.h
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/transpose-inl.h"

// One output is one chain of fused multiply-adds over the inputs in ascending order, for every
// number of tokens, vector width and thread count: blocks and tiles below only change which chains
// run side by side. (The scalar target, for machines without AVX2, rounds the product too.)
HWY_BEFORE_NAMESPACE();
namespace nsa::cpu::HWY_NAMESPACE {

// Register tile: kMaxTokens tokens times two vectors of outputs.
inline constexpr int kMaxTokens = HWY_TARGET == HWY_AVX3 ? 12 : 4;
// Inputs of one block: its weights stay in the second-level cache while the tokens pass by.
inline constexpr int64_t kBlockInputs = 512;

// sums[t][0 .. 2 vectors) += x[i][t] * weights[i][..] for i in [0, num_inputs). x is [inputs,
// kTokens], weights and sums have row strides kPanelOutputs and sum_stride.
template <int kTokens, typename T>
HWY_NOINLINE void MultiplyTile(const float* HWY_RESTRICT x, const T* HWY_RESTRICT weights,
                               int64_t num_inputs, bool is_first, float* HWY_RESTRICT sums,
                               int64_t sum_stride) {
  const hn::CappedTag<float, kPanelOutputs / 2> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V sum0[kTokens], sum1[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    sum0[t] = is_first ? hn::Zero(d) : hn::LoadU(d, sums + t * sum_stride);
    sum1[t] = is_first ? hn::Zero(d) : hn::LoadU(d, sums + t * sum_stride + lanes);
  }
  for (int64_t i = 0; i < num_inputs; ++i, x += kTokens, weights += kPanelOutputs) {
    const V w0 = LoadF32(d, weights), w1 = LoadF32(d, weights + lanes);
    for (int t = 0; t < kTokens; ++t) {
      const V xt = hn::Set(d, x[t]);
      sum0[t] = hn::MulAdd(xt, w0, sum0[t]);
      sum1[t] = hn::MulAdd(xt, w1, sum1[t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    hn::StoreU(sum0[t], d, sums + t * sum_stride);
    hn::StoreU(sum1[t], d, sums + t * sum_stride + lanes);
  }
}

// One panel and one token tile over one block of inputs, accumulated into `out`.
template <int kTokens, typename T>
HWY_INLINE void MultiplyPanel(const float* x, const LinearArgs& args, int64_t first_token,
                              int64_t panel, int64_t first_input, int64_t num_inputs) {
  const int64_t step =
      2 * static_cast<int64_t>(hn::Lanes(hn::CappedTag<float, kPanelOutputs / 2>()));
  const int64_t num_outputs = args.weight.num_outputs;
  const int64_t first_output = panel * kPanelOutputs;
  const int64_t num_here = std::min(kPanelOutputs, num_outputs - first_output);
  const T* weights =
      args.weight.data.data<T>() + PackedIndex(args.weight, first_output, first_input);
  float* out = args.out.data<float>() + first_token * num_outputs + first_output;
  const bool is_first = first_input == 0;
  if (num_here == kPanelOutputs) {
    for (int64_t o = 0; o < kPanelOutputs; o += step) {
      MultiplyTile<kTokens>(x, weights + o, num_inputs, is_first, out + o, num_outputs);
    }
    return;
  }
  // The last panel's padding has no place in `out`.
  float sums[kTokens * kPanelOutputs] = {};
  for (int t = 0; t < kTokens && !is_first; ++t) {
    std::copy_n(out + t * num_outputs, num_here, sums + t * kPanelOutputs);
  }
  for (int64_t o = 0; o < num_here; o += step) {
    MultiplyTile<kTokens>(x, weights + o, num_inputs, is_first, sums + o, kPanelOutputs);
  }
  for (int t = 0; t < kTokens; ++t) {
    std::copy_n(sums + t * kPanelOutputs, num_here, out + t * num_outputs);
  }
}

// to[i][t] = from[t][i]
template <int kTokens>
HWY_INLINE void PackInputs(const float* from, int64_t stride, int64_t num_inputs, float* to) {
  int t = 0;
  for (; t + 4 <= kTokens; t += 4) {
    const float* rows[4];
    for (int j = 0; j < 4; ++j) rows[j] = from + (t + j) * stride;
    TransposeFourRows<kTokens>(rows, num_inputs, to + t);
  }
  for (; t < kTokens; ++t) {
    for (int64_t i = 0; i < num_inputs; ++i) to[i * kTokens + t] = from[t * stride + i];
  }
}

template <int kTokens, typename T>
HWY_INLINE void MultiplyTokens(const LinearTask& task, int64_t first_token, int64_t first_input,
                               int64_t num_inputs) {
  const int64_t stride = task.args.weight.num_inputs;
  const float* x = task.args.x.data<float>() + first_token * stride + first_input;
  alignas(64) float packed[kTokens * kBlockInputs];
  if constexpr (kTokens > 1) {
    PackInputs<kTokens>(x, stride, num_inputs, packed);
    x = packed;
  }
  for (int64_t panel = task.first_panel; panel < task.end_panel; ++panel) {
    MultiplyPanel<kTokens, T>(x, task.args, first_token, panel, first_input, num_inputs);
  }
}

// Tokens in tiles of kTokens, what is left in smaller ones.
template <int kTokens, typename T>
HWY_INLINE void MultiplyFrom(const LinearTask& task, int64_t first_token, int64_t first_input,
                             int64_t num_inputs) {
  for (; first_token + kTokens <= task.end_token; first_token += kTokens) {
    MultiplyTokens<kTokens, T>(task, first_token, first_input, num_inputs);
  }
  if constexpr (kTokens > 1) {
    if (first_token < task.end_token) {
      MultiplyFrom<kTokens - 1, T>(task, first_token, first_input, num_inputs);
    }
  }
}

template <typename T>
void RunTask(const LinearTask& task) {
  const int64_t num_inputs = task.args.weight.num_inputs;
  for (int64_t first = 0; first < num_inputs; first += kBlockInputs) {
    MultiplyFrom<kMaxTokens, T>(task, task.first_token, first,
                                std::min(kBlockInputs, num_inputs - first));
  }
}

void RunTaskF32(const LinearTask& task) { RunTask<float>(task); }
void RunTaskBF16(const LinearTask& task) { RunTask<BFloat16>(task); }

}  // namespace nsa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa::cpu {
namespace {

HWY_EXPORT(RunTaskF32);
HWY_EXPORT(RunTaskBF16);

// Tokens of one task: enough to use a block of weights many times, few enough that their inputs
// stay in the cache too. A multiple of every token tile.
constexpr int64_t kTaskTokens = 96;
constexpr int64_t kMaxTaskPanels = 8;
constexpr int64_t kTasksPerThread = 4;

}  // namespace

void Linear(const LinearArgs& args, const Stream& stream) {
  const int64_t num_tokens = args.x.dim(0);
  const int64_t num_panels = (args.weight.num_outputs + kPanelOutputs - 1) / kPanelOutputs;
  const int64_t num_chunks = (num_tokens + kTaskTokens - 1) / kTaskTokens;
  const int64_t wanted_tasks = NumThreads(stream) * kTasksPerThread;
  const int64_t task_panels = std::clamp<int64_t>(
      num_panels * num_chunks / std::max<int64_t>(1, wanted_tasks), 1, kMaxTaskPanels);
  const int64_t num_groups = (num_panels + task_panels - 1) / task_panels;
  if (args.weight.num_inputs == 0) {
    std::fill_n(args.out.data<float>(), args.out.num_elements(), 0.0F);
    return;
  }
  const bool is_f32 = args.weight.data.dtype() == DType::kF32;
  ParallelFor(stream, num_chunks * num_groups, [&](int64_t item, int) {
    const int64_t chunk = item % num_chunks, group = item / num_chunks;
    const LinearTask task{.args = args,
                          .first_token = chunk * kTaskTokens,
                          .end_token = std::min(num_tokens, (chunk + 1) * kTaskTokens),
                          .first_panel = group * task_panels,
                          .end_panel = std::min(num_panels, (group + 1) * task_panels)};
    if (is_f32) {
      HWY_DYNAMIC_DISPATCH(RunTaskF32)(task);
    } else {
      HWY_DYNAMIC_DISPATCH(RunTaskBF16)(task);
    }
  });
}

}  // namespace nsa::cpu
#endif
