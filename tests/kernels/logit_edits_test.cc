// Edits of logits, as sampling makes them: masks at the edges of words, of threads and of what a
// block has at a time, edits of what masks leave and of what they forbid, and what they leave
// alone.

#include "kernels/logit_edits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/sampling.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TensorView Ids(std::vector<int32_t>& values) {
  return {values.data(), DType::kI32, {static_cast<int64_t>(values.size())}};
}

template <typename T>
TensorView Bytes(std::vector<T>& values) {
  return {values.data(), DType::kU8, {static_cast<int64_t>(values.size() * sizeof(T))}};
}

bool IsSame(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// Rows of logits to sample, some of them edited.
struct Case {
  explicit Case(int64_t vocab) : vocab_size(vocab) {}

  // A row as it is; its edits, if it gets any, are added before the next row.
  void AddRow(const std::vector<float>& row,
              const SampleRow& how = {.params = {.temperature = 0}}) {
    ASSERT_EQ(static_cast<int64_t>(row.size()), vocab_size);
    logits.insert(logits.end(), row.begin(), row.end());
    rows.push_back(how);
  }
  // Edits of the last row. With `allows` there is a mask; its bits beyond the vocabulary are set.
  void Edit(const std::vector<LogitEdit>& more) {
    rows.back().edited_row = static_cast<int32_t>(edit_end.size());
    edits.insert(edits.end(), more.begin(), more.end());
    edit_end.push_back(static_cast<int32_t>(edits.size()));
    masks.resize(masks.size() + NumMaskWords(vocab_size), -1);
  }
  template <typename Allows>
  void EditMasked(const Allows& allows, const std::vector<LogitEdit>& more = {}) {
    Edit(more);
    has_masks = true;
    int32_t* const mask = masks.data() + masks.size() - NumMaskWords(vocab_size);
    for (int64_t v = 0; v < vocab_size; ++v) {
      if (!allows(v)) mask[v / 32] &= ~static_cast<int32_t>(1U << (v % 32));
    }
  }

  // What becomes of edited row e.
  std::vector<float> Edited(size_t row) const {
    const auto from = logits.begin() + static_cast<int64_t>(row) * vocab_size;
    std::vector<float> edited(from, from + vocab_size);
    const int32_t e = rows[row].edited_row;
    if (e < 0) return edited;
    for (int64_t v = 0; v < vocab_size; ++v) {
      const auto word = static_cast<uint32_t>(masks[e * NumMaskWords(vocab_size) + v / 32]);
      if ((word >> (v % 32) & 1) == 0) edited[v] = -kInfinity;
    }
    for (int32_t i = e == 0 ? 0 : edit_end[e - 1]; i < edit_end[e]; ++i) {
      float& logit = edited[edits[i].token];
      const float scaled = logit > 0 ? logit / edits[i].factor : logit * edits[i].factor;
      logit = scaled + edits[i].shift;
    }
    return edited;
  }

  const int64_t vocab_size;
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  std::vector<int32_t> edit_end, masks;
  std::vector<LogitEdit> edits;
  bool has_masks = false;
};

struct Sampled {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<uint8_t> finite;
  std::vector<int32_t> top_tokens;  // [N, kMaxTopLogprobs]
};

class LogitEditsTest : public DeviceTest {
 protected:
  // Samples the rows. The edited ones must have become what they should.
  static Sampled Sample(Case test) {
    const int64_t num_rows = std::ssize(test.rows), num_edited = std::ssize(test.edit_end);
    if (test.edits.empty()) test.edits.emplace_back();
    std::vector<float> edited(std::max<int64_t>(1, num_edited) * test.vocab_size, kNan);
    Sampled out{.tokens = std::vector<int32_t>(num_rows, -1),
                .logprobs = std::vector<float>(num_rows, kNan),
                .finite = std::vector<uint8_t>(num_rows, 9),
                .top_tokens = std::vector<int32_t>(num_rows * kMaxTopLogprobs, -2)};
    std::vector<float> top_logprobs(num_rows * kMaxTopLogprobs);
    const TensorView logits(test.logits.data(), DType::kF32, {num_rows, test.vocab_size});
    const TensorView scratch(edited.data(), DType::kF32, {num_edited, test.vocab_size});
    const TensorView logprobs(out.logprobs.data(), DType::kF32, {num_rows});
    const TensorView top_tokens(out.top_tokens.data(), DType::kI32, {num_rows, kMaxTopLogprobs});
    const TensorView top(top_logprobs.data(), DType::kF32, {num_rows, kMaxTopLogprobs});
    const TensorView masks(test.masks.data(), DType::kI32,
                           {test.has_masks ? num_edited : 0, NumMaskWords(test.vocab_size)});
    OnDevice on(GetParam());
    SampleArgs args{
        .logits = on(logits),
        .rows = {static_cast<const SampleRow*>(on(Bytes(test.rows)).raw()), test.rows.size()},
        .tokens = on(Ids(out.tokens)),
        .logprobs = on(logprobs),
        .top_tokens = on(top_tokens),
        .top_logprobs = on(top),
        .finite = on(Bytes(out.finite))};
    if (num_edited > 0) {
      args.edits = {
          .edit_end = on(Ids(test.edit_end)), .edits = on(Bytes(test.edits)), .masks = on(masks)};
      args.edited_logits = on(scratch);
    }
    SampleTokens(args, on.stream());
    on.Fetch();
    for (size_t row = 0; row < test.rows.size(); ++row) {
      const int32_t e = test.rows[row].edited_row;
      if (e >= 0) ExpectSame(test.Edited(row), &edited[e * test.vocab_size]);
    }
    return out;
  }

 private:
  static void ExpectSame(const std::vector<float>& expected, const float* actual) {
    for (size_t v = 0; v < expected.size(); ++v) {
      ASSERT_TRUE(IsSame(actual[v], expected[v])) << v << ": " << actual[v] << " " << expected[v];
    }
  }
};
NSA_INSTANTIATE_ON_DEVICES(LogitEditsTest);

std::vector<float> SomeLogits(int64_t vocab_size, int64_t row = 0) {
  std::vector<float> logits;
  for (int64_t v = 0; v < vocab_size; ++v) {
    logits.push_back(static_cast<float>((row * 31 + v * 7) % 101) / 8 - 6);
  }
  return logits;
}

// The first of the largest.
int32_t Best(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST_P(LogitEditsTest, MasksHoldAtEveryEdge) {
  for (const int64_t vocab_size : {1, 2, 31, 32, 33, 1023, 1024, 1025, 8192, 131072 + 33}) {
    const std::vector<float> logits = SomeLogits(vocab_size);
    Case test(vocab_size);
    std::vector<int32_t> expected;
    for (const int64_t token : {0, 1, 31, 32, 63, 1023, 1024, 8191, 131071, 131072, 131104}) {
      if (token >= vocab_size) break;
      test.AddRow(logits);
      test.EditMasked([&](int64_t v) { return v == token; });
      expected.push_back(static_cast<int32_t>(token));
      test.AddRow(logits, {.params = {.temperature = 3}});
      test.EditMasked([&](int64_t v) { return v == token; });
      expected.push_back(static_cast<int32_t>(token));
    }
    test.AddRow(logits);
    test.EditMasked([&](int64_t v) { return v == vocab_size - 1; });
    expected.push_back(static_cast<int32_t>(vocab_size) - 1);
    test.AddRow(logits);
    test.EditMasked([](int64_t) { return true; });
    expected.push_back(Best(logits));
    test.AddRow(logits, {.params = {.temperature = 1}});
    test.EditMasked([](int64_t) { return false; });
    expected.push_back(0);
    EXPECT_EQ(Sample(test).tokens, expected) << vocab_size;
  }
}

TEST_P(LogitEditsTest, EditsComeBehindTheMask) {
  constexpr int64_t kVocab = 2077;
  const std::vector<float> first = SomeLogits(kVocab, 2), second = SomeLogits(kVocab, 0);
  ASSERT_NE(first[6] > 0, first[2076] > 0);  // both sides of the factor
  Case test(kVocab);
  test.AddRow(SomeLogits(kVocab, 1));
  test.AddRow(first);
  test.Edit({{.token = 6, .factor = 1.1F},
             {.token = 2076, .factor = 1.3F, .shift = -1.7F},
             {.token = 0, .shift = -kInfinity}});
  test.AddRow(second);
  // Of what is left one more is forbidden; what the mask forbids stays so.
  test.EditMasked(
      [](int64_t v) { return v % 3 == 1 || v == 64; },
      {{.token = 64, .shift = 30}, {.token = 65, .shift = 90}, {.token = 1, .factor = 2}});
  const std::vector<int32_t> tokens = Sample(test).tokens;
  EXPECT_EQ(tokens[0], Best(SomeLogits(kVocab, 1)));
  EXPECT_EQ(tokens[1], Best(test.Edited(1)));
  EXPECT_EQ(tokens[2], 64);
}

TEST_P(LogitEditsTest, AStepMayHaveNoMasks) {
  Case test(70);
  for (int64_t row = 0; row < 3; ++row) {
    test.AddRow(SomeLogits(70, row));
    test.Edit({{.token = static_cast<int32_t>(69 - row), .shift = 90}});
  }
  EXPECT_FALSE(test.has_masks);
  EXPECT_EQ(Sample(test).tokens, (std::vector<int32_t>{69, 68, 67}));
}

// The largest is found again when an edit makes it smaller, and ties go to the lower id.
TEST_P(LogitEditsTest, TheChoiceFollowsTheEdits) {
  const auto choice = [](const std::vector<LogitEdit>& edits) {
    Case test(40);
    std::vector<float> logits(40, 1);
    logits[7] = logits[33] = 3;
    logits[20] = 2;
    test.AddRow(logits);
    test.EditMasked([](int64_t v) { return v != 2; }, edits);
    return Sample(test).tokens[0];
  };
  EXPECT_EQ(choice({}), 7);
  EXPECT_EQ(choice({{.token = 7, .shift = -1}}), 33);
  EXPECT_EQ(choice({{.token = 7, .factor = 3}, {.token = 33, .shift = -kInfinity}}), 20);
  EXPECT_EQ(choice({{.token = 7, .shift = 1}}), 7);
  EXPECT_EQ(choice({{.token = 33, .shift = -2}}), 7);
  EXPECT_EQ(choice({{.token = 33, .shift = 1}}), 33);
  EXPECT_EQ(choice({{.token = 39, .shift = 2}}), 7);
  EXPECT_EQ(choice({{.token = 4, .shift = 2}}), 4);
  EXPECT_EQ(choice({{.token = 2, .shift = 9}}), 7);
  EXPECT_EQ(choice({{.token = 7, .shift = -1}, {.token = 39, .shift = 9}}), 39);
}

// More edits than a block makes at a time.
TEST_P(LogitEditsTest, EveryTokenMayBeEdited) {
  constexpr int64_t kVocab = 9001;
  std::vector<LogitEdit> edits;
  for (int32_t v = 0; v < kVocab; ++v) {
    const int32_t token = static_cast<int32_t>((int64_t{v} * 4001 + 17) % kVocab);
    edits.push_back({.token = token,
                     .factor = 1.0F + static_cast<float>(token % 7) / 9,
                     .shift = static_cast<float>(token % 13) / 3});
  }
  Case test(kVocab);
  for (int64_t row = 0; row < 3; ++row) {
    test.AddRow(SomeLogits(kVocab, row));
    test.EditMasked([&](int64_t v) { return (v + row) % 5 != 0; }, edits);
  }
  const std::vector<int32_t> tokens = Sample(test).tokens;
  for (size_t row = 0; row < 3; ++row) EXPECT_EQ(tokens[row], Best(test.Edited(row))) << row;
}

TEST_P(LogitEditsTest, NonNumbersAreNeverChosen) {
  Case test(5);
  test.AddRow({kNan, 1, kInfinity, -kInfinity, 2});
  test.EditMasked([](int64_t v) { return v != 2; });
  test.AddRow({kNan, 1, kInfinity, -kInfinity, 2}, {.params = {.temperature = 1e-6F}});
  test.EditMasked([](int64_t v) { return v != 2; }, {{.token = 0, .factor = 2, .shift = 5}});
  test.AddRow({0, 1, 2, 3, 4});
  test.EditMasked([](int64_t) { return true; }, {{.token = 4, .shift = kNan}});
  test.AddRow({0, 1, 2, 3, 4}, {.params = {.temperature = 1}});
  test.Edit({{.token = 0, .shift = -kInfinity},
             {.token = 1, .shift = -kInfinity},
             {.token = 2, .shift = kNan},
             {.token = 3, .shift = -kInfinity},
             {.token = 4, .shift = -kInfinity}});
  test.AddRow({0, 1, 2, 3, 4});
  test.Edit({{.token = 1, .shift = kInfinity}});
  const Sampled sampled = Sample(test);
  EXPECT_EQ(sampled.tokens, (std::vector<int32_t>{4, 4, 3, 0, 1}));
  EXPECT_EQ(sampled.finite, (std::vector<uint8_t>{0, 0, 1, 1, 1}));  // of the model's logits
}

// A row with edits is sampled like a row that has those logits already; log-probabilities are those
// of the row without edits, and rows without edits do not notice.
TEST_P(LogitEditsTest, SamplingChoosesFromTheEditedRow) {
  constexpr int64_t kVocab = 3001, kNumRows = 24;
  std::mt19937 random(11);
  Case test(kVocab), plain(kVocab);
  for (int64_t row = 0; row < kNumRows; ++row) {
    std::vector<float> logits;
    for (int64_t v = 0; v < kVocab; ++v)
      logits.push_back(std::normal_distribution(0.0F, 3.0F)(random));
    const SampleRow how{.params = {.temperature = row % 4 == 0 ? 0 : 0.8F,
                                   .top_k = row % 3 == 0 ? 50 : 0,
                                   .top_p = row % 5 == 0 ? 0.9F : 1.0F,
                                   .seed = static_cast<uint64_t>(row)},
                        .position = row,
                        .num_top_logprobs = static_cast<int32_t>(row % 3)};
    test.AddRow(logits, how);
    std::vector<LogitEdit> edits;
    for (int32_t token = 0; token < kVocab; token += 1 + static_cast<int32_t>(random() % 40)) {
      edits.push_back({.token = token, .factor = 1.2F, .shift = -0.3F});
    }
    if (row % 6 == 1) test.Edit(edits);
    if (row % 6 == 2) test.EditMasked([](int64_t v) { return v % 7 < 3; });
    if (row % 6 > 3) test.EditMasked([](int64_t v) { return v % 5 == 2; }, edits);
    plain.AddRow(test.Edited(static_cast<size_t>(row)), how);
  }
  const Sampled sampled = Sample(test);
  EXPECT_EQ(sampled.tokens, Sample(plain).tokens);
  Case scored(kVocab);
  scored.logits = test.logits;
  for (size_t row = 0; row < kNumRows; ++row) {
    scored.rows.push_back(
        {.num_top_logprobs = test.rows[row].num_top_logprobs, .scored_token = sampled.tokens[row]});
  }
  const Sampled expected = Sample(scored);
  EXPECT_EQ(sampled.tokens, expected.tokens);
  EXPECT_EQ(sampled.logprobs, expected.logprobs);
  EXPECT_EQ(sampled.top_tokens, expected.top_tokens);
  EXPECT_EQ(sampled.finite, std::vector<uint8_t>(kNumRows, 1));
}

TEST(LogitEditsDeathTest, MisuseIsAProgrammerError) {
  std::vector<float> values = {1, 2};
  std::vector<SampleRow> rows = {{.edited_row = 1}};
  std::vector<int32_t> edit_end = {1}, masks(2, -1);
  std::vector<LogitEdit> edits = {{.token = 2}};
  const Tensor edited(DType::kF32, {1, 2}), tokens(DType::kI32, {1});
  SampleArgs args{.logits = TensorView(values.data(), DType::kF32, {1, 2}),
                  .rows = rows,
                  .edits = {.edit_end = Ids(edit_end),
                            .edits = Bytes(edits),
                            .masks = TensorView(masks.data(), DType::kI32, {1, 1})},
                  .edited_logits = edited.view(),
                  .tokens = tokens.view()};
  EXPECT_DEATH(SampleTokens(args, {}), "1 against 1");
  rows[0].edited_row = 0;
  EXPECT_DEATH(SampleTokens(args, {}), "check failed.* 2");  // token 2 of 2
  edits[0].token = 1;
  edit_end = {2};
  EXPECT_DEATH(SampleTokens(args, {}), "0 to 2");
  edit_end = {1};
  args.edits.masks = TensorView(masks.data(), DType::kI32, {2, 1});
  EXPECT_DEATH(SampleTokens(args, {}), "masks is");
}

}  // namespace
}  // namespace nsa::testing
