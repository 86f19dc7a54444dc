// Times the Hopper kernels of prefill's selected and window branches, and of dense attention, on
// random caches; the tests check them.
//   branches_bench [prefill|dense|decode|all]
// prefill: the blocks of a token are random, so that neighbours share the forced ones only.

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "bench/kernels/cuda/prefill_step.cuh"
#include "kernels/cuda/sm90/dense_attention.h"
#include "kernels/cuda/sm90/prefill_branches.h"
#include "kernels/cuda/sm90/prefill_plan.h"

namespace nsa {
namespace {

constexpr int64_t kPageTokens = 64;

// Median time of `launches` calls, each of which enqueues the same work on the stream.
double MedianMs(int launches, const std::function<void(cudaStream_t)>& launch) {
  static const cudaStream_t stream = MakeStream();
  return nsa::MedianMs(stream, launches, [&] { launch(stream); });
}

// A thread per (token, KV head): the forced blocks, and one block of each of as many equal parts of
// the others as there is room for.
__global__ void ChooseBlocks(NsaShape shape, const int32_t* position, int64_t num_items,
                             int64_t num_kv_heads, int32_t* blocks) {
  const int64_t item = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (item >= num_items) return;
  const int64_t own = position[item / num_kv_heads] / shape.block_tokens;
  const int64_t begin = min(shape.num_initial, own + 1);
  const int64_t end = max(begin, own - shape.num_local + 1);
  const int64_t num_others =
      min(end - begin, shape.num_selected - shape.num_initial - shape.num_local);
  int32_t* out = blocks + item * shape.num_selected;
  for (int64_t b = 0; b < begin; ++b) *out++ = static_cast<int32_t>(b);
  for (int64_t i = 0; i < num_others; ++i) {
    const int64_t low = begin + (end - begin) * i / num_others;
    const int64_t high = begin + (end - begin) * (i + 1) / num_others;
    const float part = (Noise(item * shape.num_selected + i, 11) + 3.5F) / 7.0F;  // in [0, 1)
    *out++ = static_cast<int32_t>(low + static_cast<int64_t>(part * (high - low)));
  }
  for (int64_t b = end; b <= own; ++b) *out++ = static_cast<int32_t>(b);
  while (out < blocks + (item + 1) * shape.num_selected) *out++ = -1;
}

// A step and its caches of all tokens, which serve the selected branch, the window and dense
// attention alike.
struct TokenStep : Step {
  explicit TokenStep(const Case& config)
      : Step(config),
        num_heads(c.num_kv_heads * c.group_size),
        k_pages(num_pages * c.num_kv_heads * kPageTokens * c.d_k * 2),
        v_pages(num_pages * c.num_kv_heads * kPageTokens * c.d_v * 2),
        cmp(num_tokens * num_heads * c.d_v * 2),
        gates(num_tokens * num_heads * 3 * 4) {
    const int64_t all = int64_t{1} << 62;
    const int64_t rows = num_pages * c.num_kv_heads * kPageTokens;
    Fill(k_pages, c.bf16, rows * c.d_k, 4, all);
    Fill(v_pages, c.bf16, rows * c.d_v, 5, all);
    Fill(cmp, c.bf16, num_tokens * num_heads * c.d_v, 6, all);
    FillKernel<<<1024, 256>>>(static_cast<float*>(gates.get()), num_tokens * num_heads * 3, 7, all);
  }

  PagedKv Tokens() const {
    const DType dtype = CaseDType(c);
    return {.k = {k_pages.get(), dtype, {num_pages, c.num_kv_heads, kPageTokens, c.d_k}},
            .v = {v_pages.get(), dtype, {num_pages, c.num_kv_heads, kPageTokens, c.d_v}},
            .table = Compressed().rows.table};
  }
  DenseAttentionArgs Dense() const {
    const CompressedAttentionArgs a = Compressed();
    return {.tokens = a.tokens,
            .q = a.q,
            .kv = Tokens(),
            .out = a.out,
            .lse = a.lse,
            .softmax_scale = a.softmax_scale};
  }
  cuda::PrefillBranchesArgs Branches(const Buffer& scratch, int64_t num_bytes) const {
    const CompressedAttentionArgs a = Compressed();
    return {.shape = c.shape,
            .tokens = a.tokens,
            .q = a.q,
            .gate_logits = {gates.get(), DType::kF32, {num_tokens, num_heads, 3}},
            .cmp = {cmp.get(), CaseDType(c), {num_tokens, num_heads, c.d_v}},
            .blocks = Select().blocks,
            .sel = Tokens(),
            .win = Tokens(),
            .out = a.out,
            .scratch = {scratch.get(), DType::kU8, {num_bytes}},
            .softmax_scale = a.softmax_scale};
  }

  int64_t num_heads;
  Buffer k_pages, v_pages, cmp, gates;
};

// ms of the chain and of its stages, and TFLOP/s of the products that are needed.
void TimePrefill(int64_t num_tokens, int64_t d_k, int64_t d_v) {
  const Case c{.name = "prefill", .shape = {}, .chunks = {{0, num_tokens}}, .d_k = d_k, .d_v = d_v};
  const TokenStep step(c);
  const int64_t num_items = num_tokens * c.num_kv_heads;
  constexpr int kThreads = 128;
  ChooseBlocks<<<static_cast<unsigned>((num_items + kThreads - 1) / kThreads), kThreads>>>(
      c.shape, static_cast<int32_t*>(step.d_position->get()), num_items, c.num_kv_heads,
      static_cast<int32_t*>(step.blocks->get()));
  CUDA_OK(cudaGetLastError());
  const int64_t num_bytes = cuda::PrefillBranchesScratchBytes(step.Extent());
  const Buffer scratch(num_bytes);
  const cuda::PrefillBranchesArgs args = step.Branches(scratch, num_bytes);
  const cuda::PrefillSteps steps = cuda::MakePrefillSteps(args);
  const int num_sms = NumSms();
  constexpr int kLaunches = 11;
  const double all = MedianMs(
      kLaunches, [&](cudaStream_t stream) { cuda::LaunchPrefillBranches(args, num_sms, stream); });
  const double plan =
      MedianMs(kLaunches, [&](cudaStream_t stream) { cuda::LaunchPrefillPlan(steps, stream); });
  const auto chunks = [&](auto launch) {
    return MedianMs(kLaunches, [&](cudaStream_t stream) {
      for (int64_t i = 0; i < steps.num_chunks; ++i) launch(args, steps.At(i), num_sms, stream);
    });
  };
  const double attend = chunks(cuda::LaunchPrefillSelected);
  const double merge = chunks(cuda::LaunchPrefillMerge);
  double keys = 0;  // of all tokens
  for (const int64_t p : step.position) {
    keys += static_cast<double>(std::min(p + 1, c.shape.num_selected * c.shape.block_tokens) +
                                std::min(p + 1, c.shape.window_tokens));
  }
  std::printf(
      "selected + window + gates d %ld/%ld tokens %6ld: %7.3f ms %4.0f TF/s | plan %.3f attend "
      "%.3f merge %.3f\n",
      d_k, d_v, num_tokens, all,
      keys * static_cast<double>(step.num_heads * 2 * (d_k + d_v)) / all / 1e9, plan, attend,
      merge);
}

void TimeDensePrefill(int64_t num_tokens, int64_t d_k, int64_t d_v) {
  const Case c{.name = "dense", .shape = {}, .chunks = {{0, num_tokens}}, .d_k = d_k, .d_v = d_v};
  const TokenStep step(c);
  const int num_sms = NumSms();
  const double ms = MedianMs(
      5, [&](cudaStream_t stream) { cuda::LaunchDensePrefill(step.Dense(), num_sms, stream); });
  const double keys = static_cast<double>(num_tokens) * static_cast<double>(num_tokens + 1) / 2;
  std::printf("dense prefill d %ld/%ld tokens %6ld: %8.3f ms %4.0f TF/s\n", d_k, d_v, num_tokens,
              ms, keys * static_cast<double>(step.num_heads * 2 * (d_k + d_v)) / ms / 1e9);
}

void TimeDenseDecode(int64_t batch, int64_t context) {
  Case c{.name = "decode", .shape = {}, .chunks = {}};
  for (int64_t i = 0; i < batch; ++i) c.chunks.push_back({context - 1, 1});
  const TokenStep step(c);
  // Enough launches in a row that their start is hidden.
  constexpr int kRepeats = 10;
  const double ms = MedianMs(7,
                             [&](cudaStream_t stream) {
                               for (int i = 0; i < kRepeats; ++i) {
                                 cuda::LaunchDenseDecode(step.Dense(), batch, stream);
                               }
                             }) /
                    kRepeats;
  const double num_bytes =
      static_cast<double>(batch * context * c.num_kv_heads * (c.d_k + c.d_v) * 2);
  std::printf("dense decode batch %2ld context %6ld: %7.1f us %5.0f GB/s\n", batch, context,
              ms * 1e3, num_bytes / ms / 1e6);
}

}  // namespace
}  // namespace nsa

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "all";
  if (mode == "prefill" || mode == "all") {
    for (const int64_t tokens : {4096, 8192, 16384, 32768, 65536, 131072}) {
      nsa::TimePrefill(tokens, 128, 128);
    }
    nsa::TimePrefill(65536, 192, 128);
    nsa::TimePrefill(65536, 64, 64);
  }
  if (mode == "dense" || mode == "all") {
    for (const int64_t tokens : {8192, 16384, 65536}) nsa::TimeDensePrefill(tokens, 128, 128);
    nsa::TimeDensePrefill(16384, 192, 128);
  }
  if (mode == "decode" || mode == "all") {
    for (const int64_t context : {8192, 65536}) {
      for (const int64_t batch : {1, 8, 32}) nsa::TimeDenseDecode(batch, context);
    }
  }
  return 0;
}
