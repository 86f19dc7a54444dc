#include "tests/engine/constraint/constraint_fuzz.h"

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "engine/constraint/constraint_compiler.h"
#include "tests/engine/constraint/vocabulary.h"

namespace nsa {
namespace {

constexpr int64_t kMaxTokens = 60;

}  // namespace

bool FuzzConstraint(std::span<const uint8_t> data) {
  static const Vocabulary& vocabulary = *new Vocabulary(400);
  if (data.empty()) return false;
  const bool is_schema = data[0] % 2 == 0;
  const ConstraintSpec spec = {
      .kind = is_schema ? ConstraintKind::kJsonSchema : ConstraintKind::kRegex,
      .source = std::string(data.begin() + 1, data.end())};
  const ConstraintLimits limits = {.max_source_bytes = 4096,
                                   .max_grammar_states = 5'000,
                                   .max_mask_work = 50'000,
                                   .max_cache_bytes = 1 << 20,
                                   .max_compile_time = absl::Milliseconds(500),
                                   .warm_up_time = absl::Milliseconds(1)};
  ConstraintCompiler compiler(vocabulary.table, limits, 0);
  const auto compiled = compiler.Compile(spec);
  if (!compiled.ok()) {
    NSA_CHECK(compiled.status().code() == absl::StatusCode::kInvalidArgument);
    return false;
  }
  std::mt19937_64 random(data.size());
  ConstraintState state(*compiled);
  std::vector<uint32_t> words(vocabulary.table->num_mask_words());
  std::string text;
  for (int64_t i = 0; i < kMaxTokens; ++i) {
    if (!state.FillMask(words).ok()) return true;
    const auto allowed = AllowedTokens(&state, vocabulary.table->vocab_size());
    NSA_CHECK(!allowed.empty()) << text;
    const int32_t token = allowed[random() % allowed.size()];
    NSA_CHECK(state.Advance(token)) << text;
    if (state.has_ended()) {
      NSA_CHECK(!is_schema || nlohmann::json::accept(text)) << text;
      return true;
    }
    text += vocabulary.bytes[token];
  }
  return true;
}

}  // namespace nsa
