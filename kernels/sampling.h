#pragma once
// Picks the next token of each row of logits, and reports log-probabilities.

#include <cstdint>
#include <span>

#include "base/tensor_view.h"
#include "kernels/device.h"
#include "kernels/logit_edits.h"

namespace nsa {

inline constexpr int64_t kMaxTopLogprobs = 20;

// Applied in this order: temperature, top_k, top_p, min_p, draw. Ties rank the lower token id
// first.
struct SamplingParams {
  float temperature = 1.0F;  // 0 = greedy: the largest logit, the lower id on a tie
  int32_t top_k = 0;         // keep the k most likely; 0 = all
  float top_p = 1.0F;        // keep the fewest most likely whose mass reaches top_p
  float min_p = 0.0F;        // drop tokens less likely than min_p times the most likely one
  uint64_t seed = 0;
  bool operator==(const SamplingParams&) const = default;
};

// One row: what to draw with. The draw is a pure function of (logits to choose from, params,
// position).
struct SampleRow {
  SamplingParams params;
  int64_t position = 0;  // of the token being sampled: the counter of the random generator
  int32_t num_top_logprobs =
      -1;  // -1: no log-probabilities; 0: the chosen token's only; up to kMaxTopLogprobs
  int32_t edited_row = -1;    // of SampleArgs::edits, made before choosing; -1: none
  int32_t scored_token = -1;  // >= 0: not drawn, but given; its log-probabilities are wanted
};

// Log-probabilities are those of the unmodified logits (log_softmax), natural log. On CUDA `rows`
// lies in device memory like every tensor but the edits, all outputs must be there, and the caller
// vouches for the rows' ranges.
struct SampleArgs {
  TensorView logits;                // [N, vocab] f32
  std::span<const SampleRow> rows;  // [N]
  LogitEdits edits;                 // of the E rows with an edited_row, each its own
  TensorView edited_logits;         // scratch: [E, vocab] f32; empty where no row is edited
  TensorView tokens;                // out: [N] i32
  TensorView logprobs;              // out: [N] f32 of the chosen token, where asked for
  TensorView top_tokens;    // out: [N, kMaxTopLogprobs] i32, most likely first, where asked for
  TensorView top_logprobs;  // out: [N, kMaxTopLogprobs] f32
  TensorView finite;        // out: [N] u8, 1 if all logits of the row are finite; may be empty
};
void SampleTokens(const SampleArgs& args, const Stream& stream);

// Uniform in [0, 1) from a counter-based generator: the same (seed, position) gives the same number
// everywhere.
double UniformAt(uint64_t seed, uint64_t position);

}  // namespace nsa
