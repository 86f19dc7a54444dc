#include "engine/constraint/compiled_constraint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "engine/constraint/constraint_compiler.h"
#include "tests/engine/constraint/vocabulary.h"

namespace nsa {
namespace {

const Vocabulary& Words() {
  static const Vocabulary& vocabulary = *new Vocabulary(3000);
  return vocabulary;
}

std::shared_ptr<const CompiledConstraint> Compile(const ConstraintSpec& spec,
                                                  const ConstraintLimits& limits = {}) {
  return ConstraintCompiler(Words().table, limits, 1 << 20).Compile(spec).value();
}

ConstraintSpec Schema(const std::string& source) {
  return {.kind = ConstraintKind::kJsonSchema, .source = source};
}
ConstraintSpec Regex(const std::string& source) {
  return {.kind = ConstraintKind::kRegex, .source = source};
}

// What the masks must say, token by token.
std::vector<int32_t> TokensThatAdvance(const ConstraintState& state) {
  std::vector<int32_t> tokens;
  for (int32_t token = 0; token < Words().table->vocab_size(); ++token) {
    ConstraintState copy = state;
    if (copy.Advance(token)) tokens.push_back(token);
  }
  return tokens;
}

void ExpectExactMasks(const ConstraintSpec& spec, const ConstraintLimits& limits = {}) {
  const auto constraint = Compile(spec, limits);
  std::mt19937_64 random(7);
  for (int output = 0; output < 4; ++output) {
    ConstraintState state(constraint);
    for (int i = 0; i < 40 && !state.has_ended(); ++i) {
      const auto allowed = AllowedTokens(&state, Words().table->vocab_size());
      ASSERT_EQ(allowed, TokensThatAdvance(state)) << spec.source;
      ASSERT_FALSE(allowed.empty());
      ASSERT_TRUE(state.Advance(allowed[random() % allowed.size()]));
    }
  }
}

TEST(CompiledConstraintTest, AMaskIsExactlyWhatAdvances) {
  ExpectExactMasks({.kind = ConstraintKind::kJsonObject});
  ExpectExactMasks(Regex(".*"));
  ExpectExactMasks(Regex(".{0,30}"));
  ExpectExactMasks(Regex("[a-z ]{3,40}\xC3\xA9?"));
  ExpectExactMasks(Regex("(?:[^a]|ab)*"));
  ExpectExactMasks(Regex("[\\x00-\\x7f\xE2\x82\xAC]+"));
  ExpectExactMasks(Schema(R"({"type": "string", "maxLength": 9})"));
  ExpectExactMasks(Schema(R"({"type": "string", "minLength": 3, "maxLength": 40})"));
  ExpectExactMasks(Schema(R"({"properties": {"name": {"pattern": "^\\w+$"}}})"));
}

TEST(CompiledConstraintTest, AFullCacheChangesNothing) {
  const ConstraintLimits limits = {.max_cache_bytes = 1 << 20,
                                   .warm_up_time = absl::ZeroDuration()};
  ExpectExactMasks({.kind = ConstraintKind::kJsonObject}, limits);
  const auto constraint = Compile({.kind = ConstraintKind::kJsonObject}, limits);
  std::mt19937_64 random(3);
  bool has_begun_anew = false;
  int64_t num_states = 0;
  std::vector<uint32_t> words(Words().table->num_mask_words());
  const ConstraintState early(constraint);
  for (int output = 0; output < 60; ++output) {
    // Containers inside each other in an order that no output before had.
    std::string text = "{\"k\":";
    std::string ends = "}";
    for (int depth = 0; depth < 40; ++depth) {
      const bool is_array = random() % 2 == 0;
      text += is_array ? "[" : "{\"k\": ";
      ends.insert(ends.begin(), is_array ? ']' : '}');
    }
    text += "null" + ends;
    ConstraintState state = early;
    for (const char byte : text) {
      ASSERT_TRUE(state.FillMask(words).ok());
      const auto token = static_cast<uint8_t>(byte);
      ASSERT_TRUE(words[token / 32] >> (token % 32) & 1) << text;
      ASSERT_TRUE(state.Advance(token));
      ASSERT_LT(constraint->memory_bytes(), 3 << 19);
    }
    EXPECT_TRUE(state.is_complete());
    has_begun_anew |= constraint->num_automaton_states() < num_states;
    num_states = constraint->num_automaton_states();
  }
  EXPECT_TRUE(has_begun_anew);
}

TEST(CompiledConstraintTest, EndsExactlyWhereAccepted) {
  ConstraintState state(Compile(Regex("ab?")));
  EXPECT_FALSE(state.is_accepting());
  EXPECT_FALSE(state.Advance(Vocabulary::kEos));
  EXPECT_FALSE(state.Advance('b'));
  EXPECT_TRUE(state.Advance('a'));
  EXPECT_TRUE(state.is_accepting());
  EXPECT_FALSE(state.is_complete());
  EXPECT_EQ(AllowedTokens(&state, 3000),
            (std::vector<int32_t>{'b', Vocabulary::kEos, Vocabulary::kOtherEos}));
  EXPECT_TRUE(state.Advance('b'));
  EXPECT_TRUE(state.is_complete());
  EXPECT_EQ(AllowedTokens(&state, 3000),
            (std::vector<int32_t>{Vocabulary::kEos, Vocabulary::kOtherEos}));
  ConstraintState fork = state;
  EXPECT_TRUE(fork.Advance(Vocabulary::kOtherEos));
  EXPECT_TRUE(fork.has_ended());
  EXPECT_TRUE(AllowedTokens(&fork, 3000).empty());
  EXPECT_FALSE(fork.Advance(Vocabulary::kEos));
  EXPECT_FALSE(state.has_ended());
}

TEST(CompiledConstraintTest, TokensOutsideOfTheVocabularyAreRefused) {
  ConstraintState state(Compile(Regex(".*")));
  EXPECT_FALSE(state.Advance(-1));
  EXPECT_FALSE(state.Advance(3000));
  EXPECT_FALSE(state.Advance(Vocabulary::kControl));
  EXPECT_TRUE(state.is_accepting());
}

TEST(CompiledConstraintTest, WordsPastTheVocabularyAreCleared) {
  ConstraintState state(Compile(Regex(".*")));
  std::vector<uint32_t> words(Words().table->num_mask_words() + 5, ~0U);
  ASSERT_TRUE(state.FillMask(words).ok());
  for (size_t i = words.size() - 5; i < words.size(); ++i) EXPECT_EQ(words[i], 0U);
}

TEST(CompiledConstraintTest, CodePointsMayBeSplitButNotBroken) {
  ConstraintState state(Compile(Regex("\xE2\x82\xAC|\xC3\xA9")));
  std::vector<std::string> allowed;
  for (const int32_t token : AllowedTokens(&state, 3000)) allowed.push_back(Words().bytes[token]);
  EXPECT_THAT(allowed, testing::UnorderedElementsAre("\xC3", "\xC3", "\xE2", "\xC3\xA9", "\xE2\x82",
                                                     "\xE2\x82\xAC"));
  EXPECT_TRUE(state.Advance(0xE2));
  EXPECT_FALSE(state.is_accepting());
  EXPECT_FALSE(state.Advance(0x83));
  EXPECT_TRUE(state.Advance(0x82));
  EXPECT_TRUE(state.Advance(0xAC));
  EXPECT_TRUE(state.is_complete());
}

TEST(CompiledConstraintTest, AnOutputThatCannotBeSpelledHasAnEmptyMask) {
  const auto table = TokenTable::Create({"a", "b", "</s>"}, std::vector<int32_t>{2}).value();
  const auto constraint = ConstraintCompiler(table, {}, 0).Compile(Regex("ac")).value();
  ConstraintState state(constraint);
  ASSERT_TRUE(state.Advance(0));
  std::vector<uint32_t> words(1, ~0U);
  EXPECT_TRUE(state.FillMask(words).ok());
  EXPECT_EQ(words[0], 0U);
}

TEST(CompiledConstraintTest, ThreadsShareOneConstraint) {
  const auto constraint =
      Compile({.kind = ConstraintKind::kJsonObject},
              {.max_cache_bytes = 1 << 20, .warm_up_time = absl::ZeroDuration()});
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&constraint, i] {
      std::mt19937_64 random(i);
      for (int k = 0; k < 10; ++k)
        RandomOutput(*constraint, ConstraintState(constraint), &random, 300);
    });
  }
  for (std::thread& thread : threads) thread.join();
  ConstraintState state(constraint);
  EXPECT_EQ(AllowedTokens(&state, Words().table->vocab_size()), TokensThatAdvance(state));
}

}  // namespace
}  // namespace nsa
