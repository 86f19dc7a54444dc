#include "bench/serving/stamped_model.h"

#include <algorithm>
#include <thread>

namespace nsa::bench {
namespace {

constexpr int64_t kPageTokens = 64, kMaxSeqPages = 256;
constexpr int64_t kMaxChunkTokens = 4096;

}  // namespace

absl::StatusOr<std::vector<int32_t>> StampTokenizer::Encode(std::string_view text,
                                                            bool /*add_special_tokens*/) const {
  std::vector<int32_t> tokens;
  for (const char byte : text) tokens.push_back(static_cast<uint8_t>(byte));
  return tokens;
}

std::string StampTokenizer::Decode(const std::vector<int32_t>& tokens) const {
  std::string text;
  for (const int32_t token : tokens) text += TokenBytes(token);
  return text;
}

std::string StampTokenizer::TokenBytes(int32_t token) const {
  std::string text(kStampBits / 4 + 1, ' ');
  for (int digit = kStampBits / 4 - 1; digit >= 0; --digit, token >>= 4) {
    text[digit] = "0123456789abcdef"[token & 15];
  }
  return text;
}

StampExecutor::StampExecutor(int64_t max_num_seqs, std::chrono::microseconds step_time)
    : limits_({.page_tokens = kPageTokens,
               .num_pages = max_num_seqs * kMaxSeqPages,
               .max_num_seqs = max_num_seqs,
               .max_chunk_tokens = kMaxChunkTokens,
               .max_batched_tokens = std::max(2 * kMaxChunkTokens, max_num_seqs),
               .vocab_size = 1 << kStampBits,
               .max_seq_pages = kMaxSeqPages}),
      step_time_(step_time) {}

void StampExecutor::Launch(const Batch& batch) { num_rows_ = batch.num_rows(); }

absl::StatusOr<std::vector<SampledToken>> StampExecutor::Collect() {
  std::this_thread::sleep_until(next_step_);
  const Clock::time_point now = Clock::now();
  next_step_ = std::max(next_step_, now - step_time_) + step_time_;
  const auto stamp =
      std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count() &
      ((1 << kStampBits) - 1);
  return std::vector<SampledToken>(num_rows_, {.token = static_cast<int32_t>(stamp)});
}

}  // namespace nsa::bench
