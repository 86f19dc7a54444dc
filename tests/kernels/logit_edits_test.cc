#include "kernels/logit_edits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/sampling.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

using LogitEditsTest = DeviceTest;

TensorView Ids(std::vector<int32_t>& values) {
  return {values.data(), DType::kI32, {static_cast<int64_t>(values.size())}};
}

TensorView Bytes(std::vector<LogitEdit>& edits) {
  return {edits.data(), DType::kU8, {static_cast<int64_t>(edits.size() * sizeof(LogitEdit))}};
}

// A vocabulary that is no multiple of a mask's word or of a block of threads.
constexpr int64_t kVocab = 2077, kWords = 65;

float LogitAt(int64_t row, int64_t v) {
  return static_cast<float>((row * 31 + v * 7) % 101) / 8 - 6;
}

TEST_P(LogitEditsTest, EditsCopiesOfSomeRows) {
  const Tensor logits(DType::kF32, {3, kVocab}), out(DType::kF32, {2, kVocab});
  for (int64_t i = 0; i < 3 * kVocab; ++i) {
    logits.data<float>()[i] = LogitAt(i / kVocab, i % kVocab);
  }
  std::vector<int32_t> rows = {2, 0}, edit_end = {3, 4}, mask_of = {-1, 1};
  std::vector<LogitEdit> edits = {{.token = 6, .factor = 2},
                                  {.token = 2076, .factor = 2, .shift = -1.5F},
                                  {.token = 0, .shift = -kInfinity},
                                  {.token = 64, .shift = 3}};
  ASSERT_NE(LogitAt(2, 6) > 0, LogitAt(2, 2076) > 0);  // both sides of the factor
  // Of two masks the second, which allows the tokens that are 1 modulo 3 and token 64.
  std::vector<int32_t> masks(2 * kWords);
  const auto allows = [](int64_t v) { return v % 3 == 1 || v == 64; };
  for (int64_t v = 0; v < kVocab; ++v) {
    if (allows(v)) masks[kWords + v / 32] |= static_cast<int32_t>(1U << (v % 32));
  }
  const TensorView mask_view(masks.data(), DType::kI32, {2, kWords});
  OnDevice on(GetParam());
  EditLogits({.logits = on(logits),
              .rows = on(Ids(rows)),
              .edit_end = on(Ids(edit_end)),
              .edits = on(Bytes(edits)),
              .mask_of = on(Ids(mask_of)),
              .masks = on(mask_view),
              .out = on(out)},
             on.stream());
  on.Fetch();
  for (int64_t v = 0; v < kVocab; ++v) {
    float first = LogitAt(2, v), second = allows(v) ? LogitAt(0, v) : -kInfinity;
    if (v == 6 || v == 2076) first = first > 0 ? first / 2 : first * 2;
    if (v == 2076) first -= 1.5F;
    if (v == 0) first = -kInfinity;
    if (v == 64) second += 3;
    ASSERT_EQ(out.data<float>()[v], first) << v;
    ASSERT_EQ(out.data<float>()[kVocab + v], second) << v;
  }
}

// Choosing looks at the edited logits, log-probabilities and finiteness at the model's.
TEST_P(LogitEditsTest, SamplingChoosesFromTheEditedRow) {
  std::vector<float> values = {1, 4, 3, 2, /*edited:*/ 1, -kInfinity, -kInfinity, 2};
  const TensorView logits(values.data(), DType::kF32, {1, 4}),
      edited(values.data() + 4, DType::kF32, {1, 4});
  const Tensor repeated(DType::kF32, {4, 4});
  for (int64_t i = 0; i < 16; ++i) repeated.data<float>()[i] = values[i % 4];
  std::vector<SampleRow> rows(4);
  rows[0] = {.params = {.temperature = 0}, .num_top_logprobs = 1};
  rows[1] = {.params = {.temperature = 0}, .num_top_logprobs = 1, .edited_row = 0};
  rows[2] = {.params = {.temperature = 1, .seed = 1}, .num_top_logprobs = 0, .edited_row = 0};
  rows[3] = {.num_top_logprobs = 2, .scored_token = 2};
  const Tensor tokens(DType::kI32, {4}), logprobs(DType::kF32, {4}), finite(DType::kU8, {4});
  const Tensor top_tokens(DType::kI32, {4, kMaxTopLogprobs}),
      top_logprobs(DType::kF32, {4, kMaxTopLogprobs});
  const TensorView row_bytes(rows.data(), DType::kU8, {int64_t{4 * sizeof(SampleRow)}});
  OnDevice on(GetParam());
  SampleTokens({.logits = on(repeated),
                .edited_logits = on(edited),
                .rows = {static_cast<const SampleRow*>(on(row_bytes).raw()), rows.size()},
                .tokens = on(tokens),
                .logprobs = on(logprobs),
                .top_tokens = on(top_tokens),
                .top_logprobs = on(top_logprobs),
                .finite = on(finite)},
               on.stream());
  on.Fetch();
  const auto* token = tokens.data<int32_t>();
  EXPECT_EQ(token[0], 1);
  EXPECT_EQ(token[1], 3);
  EXPECT_TRUE(token[2] == 0 || token[2] == 3) << token[2];
  EXPECT_EQ(token[3], 2);
  const double log_sum = std::log(std::exp(1.0) + std::exp(4.0) + std::exp(3.0) + std::exp(2.0));
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(logprobs.data<float>()[i], values[token[i]] - log_sum, 1e-5) << i;
    EXPECT_EQ(finite.data<uint8_t>()[i], 1) << i;
  }
  for (int i : {0, 1, 3}) EXPECT_EQ(top_tokens.data<int32_t>()[i * kMaxTopLogprobs], 1) << i;
  EXPECT_EQ(top_tokens.data<int32_t>()[3 * kMaxTopLogprobs + 1], 2);
}

NSA_INSTANTIATE_ON_DEVICES(LogitEditsTest);

TEST(LogitEditsDeathTest, MisuseIsAProgrammerError) {
  std::vector<float> values = {1, 2};
  std::vector<int32_t> rows = {1}, edit_end = {1}, mask_of = {-1}, masks(1);
  std::vector<LogitEdit> edits = {{.token = 2}};
  const Tensor out(DType::kF32, {1, 2});
  EditLogitsArgs args{.logits = TensorView(values.data(), DType::kF32, {1, 2}),
                      .rows = Ids(rows),
                      .edit_end = Ids(edit_end),
                      .edits = Bytes(edits),
                      .mask_of = Ids(mask_of),
                      .masks = TensorView(masks.data(), DType::kI32, {1, 1}),
                      .out = out.view()};
  EXPECT_DEATH(EditLogits(args, {}), "check failed.* 1");
  rows = {0};
  EXPECT_DEATH(EditLogits(args, {}), "check failed.* 2");  // token 2 of 2
  edits[0].token = 1;
  edit_end = {2};
  EXPECT_DEATH(EditLogits(args, {}), "0 to 2");
  edit_end = {1};
  mask_of = {1};
  EXPECT_DEATH(EditLogits(args, {}), "1 against 1");
}

}  // namespace
}  // namespace nsa::testing
