#include "tests/fuzz/constraints.h"

#include "base/check.h"
#include "engine/constraint/constraint_compiler.h"

namespace nsa::fuzz {
namespace {

constexpr int32_t kEos = 256;
constexpr size_t kMaxOutputTokens = 64;

std::shared_ptr<const TokenTable> MakeTable() {
  std::vector<std::string> bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.emplace_back(1, static_cast<char>(byte));
  bytes.emplace_back();  // kEos
  for (const char* text : {"the", "{\"", "\":", "true", " 1", "\xe2\x82", "aaaa"}) {
    bytes.emplace_back(text);
  }
  return TokenTable::Create(bytes, std::vector<int32_t>{kEos}).value();
}

bool Allows(const std::vector<uint32_t>& words, int32_t token) {
  return (words[token / 32] >> (token % 32) & 1) != 0;
}

}  // namespace

void FollowConstraint(const ConstraintSpec& spec, std::string_view output) {
  static const std::shared_ptr<const TokenTable>& table =
      *new std::shared_ptr<const TokenTable>(MakeTable());
  const ConstraintLimits limits{.max_grammar_states = 10'000,
                                .max_cache_bytes = 4 << 20,
                                .max_compile_time = absl::Milliseconds(200),
                                .warm_up_time = absl::ZeroDuration()};
  ConstraintCompiler compiler(table, limits, 0);
  const auto constraint = compiler.Compile(spec);
  if (!constraint.ok()) {
    NSA_CHECK(!absl::IsInternal(constraint.status())) << constraint.status().ToString();
    return;
  }
  ConstraintState state(*constraint);
  std::vector<uint32_t> words(table->num_mask_words());
  for (size_t i = 0; i < kMaxOutputTokens && !state.has_ended(); ++i) {
    if (!state.FillMask(words).ok()) return;
    NSA_CHECK_EQ(Allows(words, kEos), state.is_accepting());
    int32_t token = i < output.size() ? static_cast<uint8_t>(output[i]) : kEos;
    const bool is_allowed = Allows(words, token);
    NSA_CHECK_EQ(state.Advance(token), is_allowed);
    // Where the output leaves the constraint, the next token that does not.
    for (int32_t other = 0; !is_allowed && other < table->vocab_size(); ++other) {
      token = static_cast<int32_t>((token + 1) % table->vocab_size());
      if (!Allows(words, token)) continue;
      NSA_CHECK(state.Advance(token)) << token;
      break;
    }
  }
}

}  // namespace nsa::fuzz
