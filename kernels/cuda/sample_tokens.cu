// SampleTokens: one block per row, which it reads a few times from L2: once for greedy, about five
// times more for each of top_k and top_p, three times for the draw. In the first pass a row with
// edits is copied as edited, for the passes behind it. Deterministic: sums are of integers, or in
// an order that depends on the vocabulary alone.

#include <limits>

#include "kernels/backends.h"
#include "kernels/cuda/device/logit_edits.cuh"
#include "kernels/cuda/device/token_cut.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx/dependent_launch.cuh"
#include "kernels/philox.h"

namespace nsa::cuda {
namespace {

struct SampleParams {
  const float* logits;  // [N, vocab]
  const SampleRow* rows;
  EditParams edits;
  float* edited_logits;  // [E, vocab]
  int32_t* tokens;
  float* logprobs;
  int32_t* top_tokens;  // [N, kMaxTopLogprobs]
  float* top_logprobs;  // [N, kMaxTopLogprobs]
  uint8_t* finite;
  int32_t vocab;
};

constexpr int kMaxTop = static_cast<int>(kMaxTopLogprobs);

struct SampleShared {
  union {
    CutShared cut;
    uint32_t mask_words[kMaskWords];  // before there is a cut
  };
  RowEdits edits;
  unsigned long long keys[kMaxWarps];
  double sums[kMaxWarps];
  int32_t token;
  int32_t num_top;
  int32_t top_ids[kMaxTop];
  float top_logits[kMaxTop];
};

// The largest clean logit and the lowest id that has it.
struct Largest {
  float logit = -INFINITY;
  int32_t id = std::numeric_limits<int32_t>::max();

  // Ids ascend, so the first of equals stays.
  __device__ __forceinline__ void See(int32_t seen_id, float clean) {
    if (clean > logit || id == std::numeric_limits<int32_t>::max()) {
      logit = clean;
      id = seen_id;
    }
  }
};

// Keys order like "larger logit, then lower id".
__device__ __forceinline__ unsigned long long KeyOf(const Largest& largest) {
  return static_cast<unsigned long long>(LogitKey(largest.logit)) << 32 |
         ~static_cast<uint32_t>(largest.id);
}
__device__ __forceinline__ Largest LargestOfBlock(unsigned long long key, SampleShared& shared) {
  key = BlockReduce(key, MaxOp(), shared.keys);
  return {LogitOfKey(static_cast<uint32_t>(key >> 32)),
          static_cast<int32_t>(~static_cast<uint32_t>(key))};
}

// What one pass over a row finds.
struct RowScan {
  Largest largest;  // of the model's logits
  Largest choice;   // of those to choose from
  bool all_finite;  // the model's
};
__device__ RowScan ScanRow(const float* logits, int32_t vocab, SampleShared& shared) {
  Largest largest;
  bool finite = true;
  ForEachLogit(logits, vocab, [&](int32_t id, float logit) {
    finite = finite && isfinite(logit);
    largest.See(id, CleanLogit(logit));
  });
  largest = LargestOfBlock(KeyOf(largest), shared);
  return {largest, largest, __syncthreads_and(finite ? 1 : 0) != 0};
}

// Loads where the row's edits are and the first words of its mask: nothing is done with what a load
// brings until all are in flight.
__device__ __forceinline__ RowEdits LoadFirst(const EditParams& params, int32_t edited_row,
                                              const RowMask& mask, SampleShared& shared) {
  int32_t begin = 0, end = 0;
  if (threadIdx.x == 0) {
    if (edited_row > 0) begin = params.edit_end[edited_row - 1];
    end = params.edit_end[edited_row];
  }
  LoadMask(mask, 0, shared.mask_words);
  if (threadIdx.x == 0) shared.edits = {.edits = params.edits + begin, .num_edits = end - begin};
  __syncthreads();
  return shared.edits;
}

// As ScanRow, and `edited` becomes the row with its edits.
__device__ RowScan ScanEditedRow(const float* logits, const EditParams& params, int32_t edited_row,
                                 float* edited, int32_t vocab, SampleShared& shared) {
  const RowMask mask = MaskOfRow(params, edited_row, vocab);
  const RowEdits row = LoadFirst(params, edited_row, mask, shared);
  const EditBatch first_edits(row, 0);  // in flight during the pass
  RowScan scan;
  bool finite = true;
  for (int32_t first = 0; first < vocab; first += kMaskTokens) {
    if (first > 0) {
      __syncthreads();  // the words before have been read
      LoadMask(mask, first / 32, shared.mask_words);
      __syncthreads();
    }
    ForEachLogit(logits + first, min(vocab - first, kMaskTokens), [&](int32_t i, float logit) {
      const bool is_allowed = (shared.mask_words[i / 32] >> (i % 32) & 1) != 0;
      const float masked = is_allowed ? logit : -INFINITY;
      edited[first + i] = masked;
      finite = finite && isfinite(logit);
      scan.largest.See(first + i, CleanLogit(logit));
      scan.choice.See(first + i, CleanLogit(masked));
    });
  }
  scan.all_finite = __syncthreads_and(finite ? 1 : 0) != 0;
  scan.largest = LargestOfBlock(KeyOf(scan.largest), shared);
  scan.choice = LargestOfBlock(KeyOf(scan.choice), shared);
  if (row.num_edits == 0) return scan;
  // An edit makes its token the largest, or it may have edited what was the largest.
  unsigned long long key = KeyOf(scan.choice);
  bool edits_choice = false;
  const auto make = [&](const EditBatch& batch) {
#pragma unroll
    for (const LogitEdit& edit : batch.edits) {
      if (edit.token < 0) continue;
      const float logit = EditedLogit(edit, edited[edit.token]);
      edited[edit.token] = logit;
      key = max(key, KeyOf({CleanLogit(logit), edit.token}));
      edits_choice = edits_choice || edit.token == scan.choice.id;
    }
  };
  make(first_edits);
  for (int32_t first = EditBatch::kBlockEdits; first < row.num_edits;
       first += EditBatch::kBlockEdits) {
    make(EditBatch(row, first));
  }
  scan.choice = __syncthreads_or(edits_choice ? 1 : 0) != 0 ? ScanRow(edited, vocab, shared).largest
                                                            : LargestOfBlock(key, shared);
  return scan;
}

// Draws from the tokens that the cut and min_p keep, ids ascending.
__device__ int32_t Draw(const LogitRow& row, const TokenCut& cut, float min_p, double uniform,
                        SampleShared& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const WarpIds ids = IdsOfWarp(row.vocab);
  const int32_t num_at_key = NumAtKeyBefore(row, cut, ids, shared.cut);
  // The most likely token's weight is 1, so min_p needs no sum.
  const auto mass_of = [&](float clean, bool is_kept) -> unsigned long long {
    return is_kept && row.Weight(clean) >= min_p ? row.Mass(clean) : 0;
  };
  unsigned long long mass = 0;
  ForEachKept(row, cut, ids, num_at_key, [&](int32_t, float clean, bool is_kept) {
    mass += mass_of(clean, is_kept);
    return true;
  });
  mass = WarpReduce(mass, AddOp());
  if (lane == 0) shared.cut.warp_mass[warp] = mass;
  __syncthreads();
  unsigned long long before = 0, total = 0;
  for (int i = 0; i < kSampleWarps; ++i) {
    if (i < warp) before += shared.cut.warp_mass[i];
    total += shared.cut.warp_mass[i];
  }
  // The token is the first at which the mass so far exceeds this; below the total, even if the
  // product was rounded up to it.
  const auto target =
      min(static_cast<unsigned long long>(uniform * static_cast<double>(total)), total - 1);
  if (before <= target && target < before + mass) {
    ForEachKept(row, cut, ids, num_at_key, [&](int32_t id, float clean, bool is_kept) {
      const unsigned long long until = before + WarpPrefixSum(mass_of(clean, is_kept));
      const uint32_t lanes = __ballot_sync(kAllLanes, until > target);
      if (lanes != 0 && lane == __ffs(static_cast<int>(lanes)) - 1) shared.token = id;
      before = __shfl_sync(kAllLanes, until, kWarpThreads - 1);
      return lanes == 0;
    });
  }
  __syncthreads();
  return shared.token;
}

__device__ int32_t SampleToken(const LogitRow& row, const SampleRow& how, SampleShared& shared) {
  const SamplingParams& params = how.params;
  TokenCut cut;
  if (params.top_k > 0 && params.top_k < row.vocab) {
    const auto target_of = [&](unsigned long long) {
      return static_cast<unsigned long long>(params.top_k);
    };
    cut = FindCut<Measure::kCount>(row, cut, target_of, shared.cut);
  }
  if (params.top_p < 1) {
    const auto target_of = [&](unsigned long long total) {
      const double target = static_cast<double>(params.top_p) * static_cast<double>(total);
      return static_cast<unsigned long long>(fmax(target, 0.0));
    };
    cut = FindCut<Measure::kMass>(row, cut, target_of, shared.cut);
  }
  const uint64_t bits = PhiloxBits(params.seed, static_cast<uint64_t>(how.position));
  return Draw(row, cut, params.min_p, UniformFromBits(bits), shared);
}

// log_softmax of one row.
struct LogProbs {
  float max;
  double log_sum;

  __device__ float Of(float logit) const {
    const float clean = CleanLogit(logit);
    if (clean == -INFINITY) return -INFINITY;
    return static_cast<float>(static_cast<double>(clean - max) - log_sum);
  }
};
__device__ LogProbs FindLogProbs(const LogitRow& row, SampleShared& shared) {
  double sum = 0;
  if (row.max > -INFINITY) {
    ForEachLogit(row.logits, row.vocab, [&](int32_t, float logit) {
      sum += static_cast<double>(row.Weight(CleanLogit(logit)));
    });
  }
  return {row.max, log(BlockReduce(sum, AddOp(), shared.sums))};
}

// The num_wanted most likely tokens, most likely first; -1 and -inf where the vocabulary ends.
__device__ void WriteTop(const LogitRow& row, int num_wanted, const LogProbs& logprobs,
                         int32_t* tokens, float* values, SampleShared& shared) {
  TokenCut cut;
  if (num_wanted < row.vocab) {
    const auto target_of = [&](unsigned long long) {
      return static_cast<unsigned long long>(num_wanted);
    };
    cut = FindCut<Measure::kCount>(row, cut, target_of, shared.cut);
  }
  const WarpIds ids = IdsOfWarp(row.vocab);
  const int32_t num_at_key = NumAtKeyBefore(row, cut, ids, shared.cut);
  if (threadIdx.x == 0) shared.num_top = 0;
  __syncthreads();
  ForEachKept(row, cut, ids, num_at_key, [&](int32_t id, float clean, bool is_kept) {
    if (is_kept) {
      const int place = atomicAdd(&shared.num_top, 1);
      shared.top_ids[place] = id;
      shared.top_logits[place] = clean;
    }
    return true;
  });
  __syncthreads();
  // Places were taken in any order; a token's rank is how many are before it.
  const auto i = static_cast<int>(threadIdx.x);
  if (i < shared.num_top) {
    const float logit = shared.top_logits[i];
    const int32_t id = shared.top_ids[i];
    int rank = 0;
    for (int j = 0; j < shared.num_top; ++j) {
      const float other = shared.top_logits[j];
      rank += other > logit || (other == logit && shared.top_ids[j] < id) ? 1 : 0;
    }
    tokens[rank] = id;
    values[rank] = logprobs.Of(logit);
  } else if (i < num_wanted) {
    tokens[i] = -1;
    values[i] = -INFINITY;
  }
  __syncthreads();
}

// The row's next token out of the logits to choose from, whose largest is known.
__device__ int32_t ChooseToken(const float* logits, const Largest& largest, const SampleRow& how,
                               int32_t vocab, SampleShared& shared) {
  if (how.params.temperature == 0 || largest.logit == -INFINITY) return largest.id;
  const LogitRow row{.logits = logits,
                     .vocab = vocab,
                     .max = largest.logit,
                     .temperature = how.params.temperature};
  return SampleToken(row, how, shared);
}

__global__ void __launch_bounds__(kSampleThreads) SampleKernel(SampleParams params) {
  __shared__ SampleShared shared;
  BeginDependentKernel();
  const int64_t row_idx = blockIdx.x;
  const float* logits = params.logits + row_idx * params.vocab;
  const SampleRow how = params.rows[row_idx];
  const float* choices = logits;
  RowScan scan;
  if (how.scored_token >= 0 || how.edited_row < 0) {
    scan = ScanRow(logits, params.vocab, shared);
  } else {
    float* const edited = params.edited_logits + int64_t{how.edited_row} * params.vocab;
    scan = ScanEditedRow(logits, params.edits, how.edited_row, edited, params.vocab, shared);
    choices = edited;
  }
  const int32_t token = how.scored_token >= 0
                            ? how.scored_token
                            : ChooseToken(choices, scan.choice, how, params.vocab, shared);
  if (threadIdx.x == 0) {
    params.tokens[row_idx] = token;
    params.finite[row_idx] = scan.all_finite ? 1 : 0;
  }
  if (how.num_top_logprobs < 0) return;
  const LogitRow row{
      .logits = logits, .vocab = params.vocab, .max = scan.largest.logit, .temperature = 1};
  const LogProbs logprobs = FindLogProbs(row, shared);
  if (threadIdx.x == 0) params.logprobs[row_idx] = logprobs.Of(logits[token]);
  if (how.num_top_logprobs == 0) return;
  WriteTop(row, how.num_top_logprobs, logprobs, params.top_tokens + row_idx * kMaxTop,
           params.top_logprobs + row_idx * kMaxTop, shared);
}

}  // namespace

void SampleTokens(const SampleArgs& args, const Stream& stream) {
  if (args.rows.empty()) return;
  NSA_CHECK_LE(args.logits.dim(1), kMaxSampleVocab);
  const TensorView& masks = args.edits.masks;
  const bool has_masks = !masks.empty() && masks.dim(0) > 0;
  const SampleParams params{
      .logits = static_cast<const float*>(args.logits.raw()),
      .rows = args.rows.data(),
      .edits = {.edit_end = static_cast<const int32_t*>(args.edits.edit_end.raw()),
                .edits = static_cast<const LogitEdit*>(args.edits.edits.raw()),
                .masks = has_masks ? static_cast<const uint32_t*>(masks.raw()) : nullptr},
      .edited_logits = static_cast<float*>(args.edited_logits.raw()),
      .tokens = static_cast<int32_t*>(args.tokens.raw()),
      .logprobs = static_cast<float*>(args.logprobs.raw()),
      .top_tokens = static_cast<int32_t*>(args.top_tokens.raw()),
      .top_logprobs = static_cast<float*>(args.top_logprobs.raw()),
      .finite = static_cast<uint8_t*>(args.finite.raw()),
      .vocab = static_cast<int32_t>(args.logits.dim(1))};
  LaunchKernel(SampleKernel, static_cast<unsigned>(args.rows.size()), kSampleThreads, 0,
               *stream.cuda, params);
}

}  // namespace nsa::cuda
