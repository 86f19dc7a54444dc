#include "engine/constrained_output.h"

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/byte_constraint.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Progress = ConstrainedOutput::Progress;

constexpr size_t kWords = 12;  // more than the vocabulary has

std::vector<int32_t> Allowed(ConstrainedOutput& output) {
  output.ExpectMask();
  output.ComputeMask();
  std::vector<int32_t> words(kWords, 77);
  output.CopyTo(words);
  std::vector<int32_t> allowed;
  for (int32_t token = 0; token < static_cast<int32_t>(kWords) * 32; ++token) {
    if ((static_cast<uint32_t>(words[token / 32]) >> (token % 32) & 1) != 0) {
      allowed.push_back(token);
    }
  }
  return allowed;
}

TEST(ConstrainedOutputTest, FollowsTheOutputToItsEnd) {
  ConstrainedOutput output(ByteRegex("ab?c"), {}, 0);
  EXPECT_THAT(Allowed(output), ElementsAre('a'));
  EXPECT_EQ(output.Advance('x'), Progress::kNotAllowed);
  EXPECT_EQ(output.Advance('a'), Progress::kOpen);
  EXPECT_THAT(Allowed(output), ElementsAre('b', 'c'));
  EXPECT_EQ(output.Advance('c'), Progress::kComplete);
}

TEST(ConstrainedOutputTest, EndTokensAreAllowedExactlyWhereTheTextIsComplete) {
  ConstrainedOutput output(ByteRegex("a+"), {}, 0);
  EXPECT_THAT(Allowed(output), ElementsAre('a'));
  EXPECT_EQ(output.Advance(kByteEos), Progress::kNotAllowed);
  EXPECT_EQ(output.Advance('a'), Progress::kOpen);
  EXPECT_THAT(Allowed(output), ElementsAre('a', kByteEos, kOtherByteEos));
  EXPECT_TRUE(output.is_end(kOtherByteEos));
  EXPECT_FALSE(output.is_end('a'));
  EXPECT_EQ(output.Advance(kOtherByteEos), Progress::kComplete);
}

TEST(ConstrainedOutputTest, StopTokensWaitForMinTokensWhereSomethingElseIsAllowed) {
  ConstrainedOutput output(ByteRegex("a*"), std::vector<int32_t>{'z'}, 2);
  EXPECT_THAT(Allowed(output), ElementsAre('a'));  // not the end of an empty text
  output.Advance('a');
  EXPECT_THAT(Allowed(output), ElementsAre('a'));
  output.Advance('a');
  EXPECT_THAT(Allowed(output), ElementsAre('a', kByteEos, kOtherByteEos));

  ConstrainedOutput stopped(ByteRegex("[ab]c"), std::vector<int32_t>{'a', 'c'}, 5);
  EXPECT_THAT(Allowed(stopped), ElementsAre('b'));
  stopped.Advance('b');
  EXPECT_THAT(Allowed(stopped), ElementsAre('c'));  // min_tokens gives way
}

TEST(ConstrainedOutputTest, AVocabularyThatCannotSpellWhatFollowsIsAnError) {
  const std::vector<std::string> bytes = {"a", "b"};
  const auto tokens = TokenTable::Create(bytes, {}).value();
  ConstraintCompiler compiler(tokens, {}, 1 << 20);
  ConstrainedOutput output(
      compiler.Compile({.kind = ConstraintKind::kChoice, .choices = {"ac"}}).value(), {}, 0);
  EXPECT_THAT(Allowed(output), ElementsAre(0));
  EXPECT_TRUE(output.MaskStatus().ok());
  EXPECT_EQ(output.Advance(0), Progress::kOpen);
  EXPECT_EQ(Allowed(output).size(), kWords * 32);  // the row can be sampled
  EXPECT_EQ(output.MaskStatus().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(output.MaskStatus().message(), HasSubstr("no token for what the constraint asks"));
}

TEST(ConstrainedOutputTest, APlaceThatIsTooAmbiguousIsAnError) {
  ConstraintLimits limits{.max_parallel_states = 6};
  limits.warm_up_time = absl::ZeroDuration();
  ConstrainedOutput output(
      CompileByteConstraint({.kind = ConstraintKind::kRegex, .source = "(?:a|b)*a(?:a|b){6}c"},
                            limits),
      {}, 0);
  absl::Status status;
  for (int i = 0; i < 40 && status.ok(); ++i) {
    Allowed(output);
    status = output.MaskStatus();
    if (status.ok() && output.Advance('a') == Progress::kNotAllowed) break;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(status.message(), HasSubstr("too ambiguous"));
}

TEST(ConstrainedOutputTest, AMaskThatWasComputedBeforeIsTakenAtOnce) {
  ConstraintLimits limits;
  limits.warm_up_time = absl::ZeroDuration();
  const auto constraint =
      CompileByteConstraint({.kind = ConstraintKind::kRegex, .source = "a*b"}, limits);
  ConstrainedOutput first(constraint, {}, 0), second(constraint, {}, 0);
  EXPECT_FALSE(second.TakeReadyMask());
  const std::vector<int32_t> allowed = Allowed(first);
  EXPECT_TRUE(second.TakeReadyMask());
  std::vector<int32_t> words(kWords);
  second.CopyTo(words);
  EXPECT_EQ(words['a' / 32], (1 << ('a' % 32)) | (1 << ('b' % 32)));
  EXPECT_THAT(allowed, ElementsAre('a', 'b'));
}

TEST(ConstrainedOutputTest, AReaderComputesTheMaskThatNobodyHasBegun) {
  ConstrainedOutput output(ByteRegex("ab"), {}, 0);
  std::vector<int32_t> words(kWords);
  output.ExpectMask();
  output.CopyTo(words);
  EXPECT_EQ(words['a' / 32], 1 << ('a' % 32));
  ASSERT_EQ(output.Advance('a'), Progress::kOpen);
  output.ComputeMask();  // too late for the mask before, too early for the next
  output.CopyTo(words);
  EXPECT_EQ(words['a' / 32], 1 << ('a' % 32));
  output.ExpectMask();
  EXPECT_TRUE(output.MaskStatus().ok());
  output.CopyTo(words);
  EXPECT_EQ(words['b' / 32], 1 << ('b' % 32));
}

TEST(ConstrainedOutputTest, ReadersWaitForTheMask) {
  ConstrainedOutput output(ByteRegex("ab"), {}, 0);
  output.ExpectMask();
  std::thread reader([&output] {
    std::vector<int32_t> words(kWords);
    output.CopyTo(words);
    EXPECT_EQ(words['a' / 32], 1 << ('a' % 32));
  });
  output.ComputeMask();
  reader.join();
}

}  // namespace
}  // namespace nsa
