#include "engine/constraint/constraint_compiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/engine/constraint/vocabulary.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kLargeCache = int64_t{1} << 30;

const Vocabulary& Words() {
  static const Vocabulary& vocabulary = *new Vocabulary(600);
  return vocabulary;
}

ConstraintSpec Choice(std::vector<std::string> choices) {
  return {.kind = ConstraintKind::kChoice, .choices = std::move(choices)};
}

TEST(ConstraintCompilerTest, ChoicesAreWholeOutputs) {
  ConstraintCompiler compiler(Words().table, {}, kLargeCache);
  const auto compiled =
      compiler.Compile(Choice({"yes", "yes, sir", "no", "", "na\xC3\xAFve"})).value();
  for (const char* text : {"yes", "yes, sir", "no", "", "na\xC3\xAFve"}) {
    EXPECT_TRUE(Accepts(ConstraintState(compiled), Words(), text)) << text;
    EXPECT_TRUE(Accepts(ConstraintState(compiled), Words(), text, true)) << text;
  }
  for (const char* text : {"ye", "yes,", "nono", "naive"}) {
    EXPECT_FALSE(Accepts(ConstraintState(compiled), Words(), text)) << text;
  }
  EXPECT_FALSE(compiler.Compile(Choice({})).ok());
  EXPECT_FALSE(compiler.Compile(Choice({"\xFF"})).ok());
}

TEST(ConstraintCompilerTest, EqualSpecsShareOneConstraint) {
  ConstraintCompiler compiler(Words().table, {}, kLargeCache);
  const auto first = compiler.Compile(Choice({"ab", "c"})).value();
  EXPECT_EQ(compiler.Compile(Choice({"ab", "c"})).value(), first);
  EXPECT_NE(compiler.Compile(Choice({"a", "bc"})).value(), first);
  EXPECT_NE(compiler.Compile({.kind = ConstraintKind::kRegex, .source = "a"}).value(),
            compiler.Compile({.kind = ConstraintKind::kRegex, .source = "a|a"}).value());
  EXPECT_EQ(compiler.num_cached(), 4);
}

TEST(ConstraintCompilerTest, TheLeastRecentlyUsedIsForgotten) {
  const auto spec = [](int i) { return Choice({absl::StrCat("choice ", i)}); };
  ConstraintCompiler probe(Words().table, {}, kLargeCache);
  const int64_t bytes_each = probe.Compile(spec(0)).value()->memory_bytes();
  ConstraintCompiler compiler(Words().table, {}, bytes_each * 3 + 300);
  const auto first = compiler.Compile(spec(0)).value();
  const auto second = compiler.Compile(spec(1)).value();
  compiler.Compile(spec(2)).value();
  EXPECT_EQ(compiler.num_cached(), 3);
  EXPECT_EQ(compiler.Compile(spec(0)).value(), first);
  compiler.Compile(spec(3)).value();
  EXPECT_EQ(compiler.num_cached(), 3);
  EXPECT_EQ(compiler.Compile(spec(0)).value(), first);
  EXPECT_NE(compiler.Compile(spec(1)).value(), second);
  // One in use lives on.
  EXPECT_TRUE(Accepts(ConstraintState(second), Words(), "choice 1"));
}

TEST(ConstraintCompilerTest, ACacheWithoutRoomKeepsTheLastOne) {
  ConstraintCompiler compiler(Words().table, {}, 0);
  const auto compiled = compiler.Compile(Choice({"a"})).value();
  EXPECT_EQ(compiler.Compile(Choice({"a"})).value(), compiled);
  compiler.Compile(Choice({"b"})).value();
  EXPECT_EQ(compiler.num_cached(), 1);
}

// Two in use, and no third.
TEST(ConstraintCompilerTest, AllTogetherAreBounded) {
  const auto spec = [](int i) { return Choice({absl::StrCat("choice ", i)}); };
  ConstraintCompiler probe(Words().table, {}, kLargeCache);
  const auto bytes_of = [&](int i) {
    return probe.Compile(spec(i)).value()->memory_bytes() + CompiledConstraint::kGrowthBytes;
  };
  const int64_t bytes_of_two = bytes_of(1) + bytes_of(2);
  ConstraintCompiler compiler(Words().table, {.max_total_bytes = bytes_of_two}, kLargeCache);
  auto first = compiler.Compile(spec(1)).value();
  const auto second = compiler.Compile(spec(2)).value();
  for (int i = 0; i < 2; ++i) {  // a refusal is not kept
    const absl::Status refused = compiler.Compile(spec(3)).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(refused.message()),
                HasSubstr(absl::StrCat("more than ", bytes_of_two, " bytes")));
  }
  EXPECT_EQ(compiler.num_cached(), 2);
  EXPECT_EQ(compiler.Compile(spec(1)).value(), first);  // a known one takes nothing
  first = nullptr;
  EXPECT_TRUE(compiler.Compile(spec(3)).ok());  // what is only kept makes room
  EXPECT_FALSE(compiler.Find(spec(1)).has_value());
  EXPECT_EQ(**compiler.Find(spec(2)), second);

  ConstraintCompiler smaller(Words().table, {.max_total_bytes = bytes_of_two - 1}, kLargeCache);
  const auto alone = smaller.Compile(spec(1)).value();
  EXPECT_FALSE(smaller.Compile(spec(2)).ok());
}

// One that may not grow has the masks of one that may.
TEST(ConstraintCompilerTest, WithoutRoomToGrowAnOutputGoesOn) {
  const ConstraintSpec spec = {.kind = ConstraintKind::kRegex, .source = "(a|b)*a(a|b){12}"};
  const ConstraintLimits roomy = {.warm_up_time = absl::ZeroDuration()};
  ConstraintLimits tight = roomy;
  tight.max_total_bytes = 3 << 19;
  ConstraintCompiler free_compiler(Words().table, roomy, kLargeCache);
  ConstraintCompiler tight_compiler(Words().table, tight, kLargeCache);
  const auto free = free_compiler.Compile(spec).value();
  const auto bounded = tight_compiler.Compile(spec).value();
  std::mt19937_64 random(1);
  std::vector<uint32_t> words(Words().table->num_mask_words()), expected = words;
  ConstraintState state(bounded), reference(free);
  const ConstraintState waiting = state;
  for (int i = 0; i < 20'000; ++i) {
    const int32_t token = random() % 2 == 0 ? 'a' : 'b';
    ASSERT_TRUE(state.Advance(token) && reference.Advance(token));
    ASSERT_TRUE(state.FillMask(words).ok() && reference.FillMask(expected).ok());
    ASSERT_EQ(words, expected) << i;
    ASSERT_LE(bounded->memory_bytes(), tight.max_total_bytes);
  }
  EXPECT_GT(free->memory_bytes(), tight.max_total_bytes);
  EXPECT_TRUE(Accepts(waiting, Words(), "baaaaaaaaaaaaa"));
}

TEST(ConstraintCompilerTest, FindGivesWhatIsKeptAndMakesItTheLastUsed) {
  const auto spec = [](int i) { return Choice({"choice " + std::to_string(i)}); };
  const int64_t one_bytes =
      ConstraintCompiler(Words().table, {}, kLargeCache).Compile(spec(0)).value()->memory_bytes();
  ConstraintCompiler compiler(Words().table, {}, 5 * one_bytes / 2);
  EXPECT_FALSE(compiler.Find(spec(0)).has_value());
  const auto first = compiler.Compile(spec(0)).value();
  compiler.Compile(spec(1)).value();
  EXPECT_EQ(**compiler.Find(spec(0)), first);
  compiler.Compile(spec(2)).value();  // takes the place of 1
  EXPECT_EQ(**compiler.Find(spec(0)), first);
  EXPECT_FALSE(compiler.Find(spec(1)).has_value());
}

TEST(ConstraintCompilerTest, AFailureIsKeptForAMinute) {
  absl::Time now = absl::UnixEpoch();
  ConstraintCompiler compiler(Words().table, {}, kLargeCache, [&now] { return now; });
  const ConstraintSpec bad = {.kind = ConstraintKind::kRegex, .source = "("};
  EXPECT_FALSE(compiler.Find(bad).has_value());
  const absl::Status status = compiler.Compile(bad).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  now += absl::Seconds(59);
  ASSERT_TRUE(compiler.Find(bad).has_value());
  EXPECT_EQ(compiler.Find(bad)->status(), status);
  EXPECT_EQ(compiler.Compile(bad).status(), status);
  now += absl::Seconds(1);
  EXPECT_FALSE(compiler.Find(bad).has_value());
  EXPECT_EQ(compiler.Compile(bad).status(), status);
  EXPECT_TRUE(compiler.Find(bad).has_value());
  EXPECT_EQ(compiler.num_cached(), 0);
}

TEST(ConstraintCompilerTest, FailuresAreBoundedAndTakeNoRoomFromConstraints) {
  ConstraintCompiler compiler(Words().table, {}, kLargeCache);
  const auto good = compiler.Compile(Choice({"a"})).value();
  const auto bad = [](int i) {
    return ConstraintSpec{.kind = ConstraintKind::kRegex,
                          .source = "(" + std::string(100'000, 'a') + std::to_string(i)};
  };
  for (int i = 0; i < 60; ++i) EXPECT_FALSE(compiler.Compile(bad(i)).ok());
  EXPECT_FALSE(compiler.Find(bad(0)).has_value());
  EXPECT_TRUE(compiler.Find(bad(59)).has_value());
  EXPECT_EQ(**compiler.Find(Choice({"a"})), good);
}

TEST(ConstraintCompilerTest, CallsThatComeTogetherCompileOnce) {
  ConstraintCompiler compiler(Words().table, {}, kLargeCache);
  std::vector<std::shared_ptr<const CompiledConstraint>> compiled(6);
  std::vector<std::thread> threads;
  for (auto& slot : compiled) {
    threads.emplace_back([&compiler, &slot] {
      slot = compiler.Compile({.kind = ConstraintKind::kJsonObject}).value();
      EXPECT_FALSE(compiler.Compile({.kind = ConstraintKind::kRegex, .source = "("}).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& one : compiled) EXPECT_EQ(one, compiled[0]);
}

TEST(ConstraintCompilerTest, TheSourceIsLimited) {
  ConstraintCompiler compiler(Words().table, {.max_source_bytes = 10}, kLargeCache);
  EXPECT_TRUE(compiler.Compile(Choice({"12345", "67890"})).ok());
  const auto refused = compiler.Compile(Choice({"12345", "678901"}));
  EXPECT_EQ(refused.status().message(), "the constraint has 11 bytes, the limit is 10");
}

}  // namespace
}  // namespace nsa
