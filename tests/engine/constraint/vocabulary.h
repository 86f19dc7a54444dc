#pragma once
// A vocabulary as real tokenizers have them, and outputs drawn through constraint masks.

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "engine/constraint/compiled_constraint.h"
#include "engine/constraint/token_table.h"

namespace nsa {

// Every byte, then JSON's favourite pieces, pieces that end or begin inside a code point, then
// pseudo-random words with and without a leading space up to `num_tokens`; two end-of-sequence
// tokens.
struct Vocabulary {
  static constexpr int32_t kEos = 256;
  static constexpr int32_t kOtherEos = 257;
  static constexpr int32_t kControl = 258;  // a token without bytes

  explicit Vocabulary(int64_t num_tokens, uint64_t seed = 1);

  std::vector<std::string> bytes;
  std::shared_ptr<const TokenTable> table;
};

// The tokens whose bits are set.
std::vector<int32_t> AllowedTokens(ConstraintState* state, int64_t vocab_size);

// An output drawn through the masks; nothing if it had not ended after `max_tokens`. The longer it
// gets, the more it prefers tokens that close something. Fails the test if a mask and Advance
// disagree or if nothing may follow before the end.
std::optional<std::string> RandomOutput(const CompiledConstraint& constraint, ConstraintState state,
                                        std::mt19937_64* random, int64_t max_tokens);

// True if the text, spelled byte by byte, is a whole output; `greedy` spells it with the longest
// tokens instead.
bool Accepts(ConstraintState state, const Vocabulary& vocabulary, std::string_view text,
             bool greedy = false);

}  // namespace nsa
