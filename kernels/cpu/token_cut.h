#pragma once
// Which tokens of a row of logits survive top_k and top_p, found without sorting the vocabulary.

#include <bit>
#include <cstdint>
#include <limits>
#include <span>

namespace nsa::cpu {

// Keys order like the logits they are made from.
inline uint32_t LogitKey(float clean_logit) {
  const uint32_t bits = std::bit_cast<uint32_t>(clean_logit);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// A prefix of the tokens in the order "larger logit first, then lower id": every token with a key
// above `key`, and the first num_at_key of those that have it.
struct TokenCut {
  uint32_t key = 0;
  int64_t num_at_key = std::numeric_limits<int64_t>::max();
};

// Decides in one pass over ascending ids which tokens a cut keeps.
class CutScan {
 public:
  explicit CutScan(const TokenCut& cut) : cut_(cut), left_at_key_(cut.num_at_key) {}
  bool Keeps(uint32_t key) { return key > cut_.key || (key == cut_.key && left_at_key_-- > 0); }

 private:
  TokenCut cut_;
  int64_t left_at_key_;
};

// The k most likely tokens.
TokenCut CutTopK(std::span<const float> logits, int64_t k);
// Of the tokens that `within` keeps, the fewest most likely whose weights (TokenWeights) sum to at
// least top_p of all that it keeps; at least one.
TokenCut CutTopP(std::span<const float> logits, float max, float temperature,
                 const TokenCut& within, float top_p);

}  // namespace nsa::cpu
