#include "bench/serving/workload.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace nsa::bench {
namespace {

constexpr int64_t kMaxTokens = 1 << 24;
constexpr int64_t kMaxTimesMedian = 16;
constexpr double kMaxSigma = 4;
constexpr int32_t kFirstId = 300, kNumIds = 4000;

constexpr std::array kWords = {"time",  "year",  "people", "way",   "day",   "man",
                               "thing", "woman", "life",   "child", "world", "hand",
                               "part",  "place", "case",   "week",  "work",  "point",
                               "home",  "room",  "night",  "water", "house", "side"};

// In (0, 1). Not the standard library's distributions: they differ between implementations.
double Uniform(std::mt19937_64& random) {
  return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53;
}

double Normal(std::mt19937_64& random) {
  const double radius = std::sqrt(-2 * std::log(Uniform(random)));
  return radius * std::cos(2 * std::numbers::pi * Uniform(random));
}

bool ParseTokens(absl::string_view text, int64_t* tokens) {
  return absl::SimpleAtoi(text, tokens) && *tokens >= 1 && *tokens <= kMaxTokens;
}

}  // namespace

absl::StatusOr<LengthDistribution> LengthDistribution::Parse(const std::string& text) {
  LengthDistribution lengths;
  bool ok = false;
  if (const std::pair<std::string, std::string> range =
          absl::StrSplit(text, absl::MaxSplits("..", 1));
      !range.second.empty()) {
    ok = ParseTokens(range.first, &lengths.low_) && ParseTokens(range.second, &lengths.high_) &&
         lengths.low_ <= lengths.high_;
  } else if (text.starts_with('~')) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(text.substr(1), absl::MaxSplits('*', 1));
    ok = ParseTokens(parts.first, &lengths.low_) &&
         absl::SimpleAtod(parts.second, &lengths.sigma_) && lengths.sigma_ > 0 &&
         lengths.sigma_ <= kMaxSigma;
    lengths.high_ = lengths.low_;
  } else {
    ok = ParseTokens(text, &lengths.low_);
    lengths.high_ = lengths.low_;
  }
  if (ok) return lengths;
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is no length; allowed: 128, 16..512, ~128*0.8 (median, sigma)"));
}

int64_t LengthDistribution::Draw(std::mt19937_64& random) const {
  if (sigma_ > 0) {
    const double drawn = static_cast<double>(low_) * std::exp(sigma_ * Normal(random));
    const auto most = static_cast<double>(low_ * kMaxTimesMedian);
    return static_cast<int64_t>(std::clamp(std::round(drawn), 1.0, most));
  }
  const auto num_values = static_cast<double>(high_ - low_ + 1);
  return low_ + static_cast<int64_t>(Uniform(random) * num_values);
}

PlannedCall Workload::Next() {
  // Every call takes the same number of draws, so that one option does not move the others.
  PlannedCall call{.index = num_calls_++};
  const double gap = -std::log(Uniform(random_));
  if (options_.rate > 0) last_arrival_ += absl::Seconds(gap / options_.rate);
  call.arrival = last_arrival_;
  call.seed = random_();
  std::mt19937_64 lengths(call.seed);
  call.prompt_tokens = options_.prompt_tokens.Draw(lengths);
  call.output_tokens = options_.output_tokens.Draw(lengths);
  const double cancelled = Uniform(random_), position = Uniform(random_);
  if (cancelled < options_.cancelled_share) {
    call.cancel_after = static_cast<int64_t>(position * static_cast<double>(call.output_tokens));
  }
  return call;
}

std::vector<int32_t> PromptIds(const PlannedCall& call) {
  std::mt19937_64 random(call.seed);
  std::vector<int32_t> ids(call.prompt_tokens);
  for (int32_t& id : ids) id = kFirstId + static_cast<int32_t>(random() % kNumIds);
  return ids;
}

std::string PromptWords(const PlannedCall& call) {
  std::mt19937_64 random(call.seed);
  std::string words;
  for (int64_t i = 0; i < call.prompt_tokens; ++i) {
    absl::StrAppend(&words, i > 0 ? " " : "", kWords[random() % kWords.size()]);
  }
  return words;
}

}  // namespace nsa::bench
