#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/logit_edits.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/token_cut.h"
#include "kernels/cpu/token_weights.h"

namespace nsa::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Largest clean logit. Independent lanes let the loop run at the speed of memory.
float MaxLogit(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> max;
  max.fill(-kInfinity);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    // A NaN compares false, so it is never the larger one.
    for (size_t lane = 0; lane < kLanes; ++lane) {
      max[lane] = logits[i + lane] > max[lane] ? logits[i + lane] : max[lane];
    }
  }
  for (; i < logits.size(); ++i) max[0] = logits[i] > max[0] ? logits[i] : max[0];
  return CleanLogit(*std::max_element(max.begin(), max.end()));
}

// Lowest id whose clean logit is `max`.
int32_t FirstTokenWith(std::span<const float> logits, float max) {
  const auto found = std::find_if(logits.begin(), logits.end(),
                                  [&](float logit) { return CleanLogit(logit) == max; });
  return static_cast<int32_t>(found - logits.begin());
}

// Draws from the tokens that the cut and min_p keep, ids ascending.
int32_t Draw(std::span<const float> logits, float max, const SamplingParams& params,
             const TokenCut& cut, double uniform) {
  const auto for_each_kept = [&](auto&& visit) {
    CutScan scan(cut);
    ForEachWeight(logits, max, params.temperature, [&](int32_t id, float logit, float weight) {
      // The most likely token's weight is 1, so min_p needs no sum.
      const bool is_kept = scan.Keeps(LogitKey(logit)) && weight >= params.min_p && weight > 0;
      return !is_kept || visit(id, static_cast<double>(weight));
    });
  };
  double total = 0;
  for_each_kept([&](int32_t, double weight) {
    total += weight;
    return true;
  });
  double cumulative = 0;
  int32_t token = -1;
  for_each_kept([&](int32_t id, double weight) {
    cumulative += weight;
    token = id;
    return cumulative <= uniform * total;
  });
  return token;
}

int32_t SampleToken(std::span<const float> logits, const SampleRow& row) {
  const SamplingParams& params = row.params;
  const float max = MaxLogit(logits);
  if (params.temperature == 0 || max == -kInfinity) return FirstTokenWith(logits, max);
  TokenCut cut;
  if (params.top_k > 0 && params.top_k < static_cast<int64_t>(logits.size())) {
    cut = CutTopK(logits, params.top_k);
  }
  if (params.top_p < 1) cut = CutTopP(logits, max, params.temperature, cut, params.top_p);
  const double uniform = UniformAt(params.seed, static_cast<uint64_t>(row.position));
  return Draw(logits, max, params, cut, uniform);
}

// log_softmax of one row.
class LogProbs {
 public:
  explicit LogProbs(std::span<const float> logits) : max_(MaxLogit(logits)) {
    double sum = 0;
    if (max_ > -kInfinity) {
      ForEachWeight(logits, max_, /*temperature=*/1, [&](int32_t, float, float weight) {
        sum += static_cast<double>(weight);
        return true;
      });
    }
    log_sum_ = std::log(sum);
  }
  float Of(float logit) const {
    const float clean = CleanLogit(logit);
    if (clean == -kInfinity) return -kInfinity;
    return static_cast<float>(static_cast<double>(clean - max_) - log_sum_);
  }

 private:
  float max_;
  double log_sum_;
};

// The num_wanted most likely tokens, most likely first; -1 and -inf where the vocabulary ends.
void TopTokens(std::span<const float> logits, int64_t num_wanted, const LogProbs& logprobs,
               int32_t* tokens, float* values) {
  std::array<float, kMaxTopLogprobs> best;
  int64_t num_kept = 0;
  for (size_t id = 0; id < logits.size(); ++id) {
    const float logit = CleanLogit(logits[id]);
    int64_t place = num_kept;
    if (num_kept == num_wanted) {
      if (!(logit > best[place - 1])) continue;
      --place;
    } else {
      ++num_kept;
    }
    for (; place > 0 && logit > best[place - 1]; --place) {
      best[place] = best[place - 1];
      tokens[place] = tokens[place - 1];
    }
    best[place] = logit;
    tokens[place] = static_cast<int32_t>(id);
  }
  for (int64_t i = 0; i < num_kept; ++i) values[i] = logprobs.Of(best[i]);
  std::fill(tokens + num_kept, tokens + num_wanted, -1);
  std::fill(values + num_kept, values + num_wanted, -kInfinity);
}

// The logits to choose from: the row's own, or a copy of them with their edits.
std::span<const float> Choices(const SampleArgs& args, const SampleRow& row,
                               std::span<const float> logits) {
  if (row.edited_row < 0) return logits;
  float* const copy =
      args.edited_logits.data<float>() + row.edited_row * args.edited_logits.stride(0);
  const std::span<float> edited(copy, logits.size());
  std::copy(logits.begin(), logits.end(), edited.begin());
  EditRow(args.edits, row.edited_row, edited);
  return edited;
}

bool AllFinite(std::span<const float> logits) {
  return std::all_of(logits.begin(), logits.end(),
                     [](float logit) { return std::isfinite(logit); });
}

}  // namespace

void SampleTokens(const SampleArgs& args, const Stream& stream) {
  const int64_t vocab = args.logits.dim(1);
  ParallelFor(stream, args.logits.dim(0), [&](int64_t i, int) {
    const SampleRow& row = args.rows[i];
    const std::span<const float> logits(args.logits.data<float>() + i * vocab,
                                        static_cast<size_t>(vocab));
    const int32_t token =
        row.scored_token >= 0 ? row.scored_token : SampleToken(Choices(args, row, logits), row);
    args.tokens.data<int32_t>()[i] = token;
    if (!args.finite.empty()) args.finite.data<uint8_t>()[i] = AllFinite(logits) ? 1 : 0;
    if (row.num_top_logprobs < 0) return;
    const LogProbs logprobs(logits);
    args.logprobs.data<float>()[i] = logprobs.Of(logits[token]);
    if (row.num_top_logprobs == 0) return;
    TopTokens(logits, row.num_top_logprobs, logprobs,
              args.top_tokens.data<int32_t>() + i * kMaxTopLogprobs,
              args.top_logprobs.data<float>() + i * kMaxTopLogprobs);
  });
}

}  // namespace nsa::cpu
