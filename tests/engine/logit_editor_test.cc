#include "engine/logit_editor.h"

#include <limits>
#include <map>

#include "gtest/gtest.h"

namespace nsa {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Factor and shift by token.
using Edits = std::map<int32_t, std::pair<float, float>>;

Edits EditsOf(const LogitEditor& editor) {
  std::vector<LogitEdit> list;
  editor.WriteEdits(list);
  Edits edits;
  for (const LogitEdit& edit : list) {
    EXPECT_TRUE(edits.emplace(edit.token, std::pair(edit.factor, edit.shift)).second) << edit.token;
  }
  return edits;
}

LogitEditor Editor(const LogitRules& rules) {
  return {rules, std::vector<int32_t>{7, 8}, std::vector<int32_t>{1, 2, 2}};
}

TEST(LogitEditorTest, PresenceAndFrequencyCountTheAnswerAlone) {
  LogitEditor editor = Editor({.presence_penalty = 0.5F, .frequency_penalty = 0.25F});
  EXPECT_EQ(EditsOf(editor), (Edits{}));
  for (int32_t token : {2, 5, 2}) editor.Append(token);
  EXPECT_EQ(EditsOf(editor), (Edits{{2, {1, -1}}, {5, {1, -0.75F}}}));
}

TEST(LogitEditorTest, RepetitionCountsPromptAndAnswer) {
  LogitEditor editor = Editor({.repetition_penalty = 1.5F});
  EXPECT_EQ(EditsOf(editor), (Edits{{1, {1.5F, 0}}, {2, {1.5F, 0}}}));
  editor.Append(9);
  EXPECT_EQ(EditsOf(editor), (Edits{{1, {1.5F, 0}}, {2, {1.5F, 0}}, {9, {1.5F, 0}}}));
}

TEST(LogitEditorTest, BiasesAddUpAndMeetPenalties) {
  LogitEditor editor =
      Editor({.presence_penalty = 1, .bias = {{.token = 3, .bias = 2}, {.token = 4, .bias = -9}}});
  editor.Append(3);
  EXPECT_EQ(EditsOf(editor), (Edits{{3, {1, 1}}, {4, {1, -9}}}));
}

TEST(LogitEditorTest, HoldsStopTokensBackUntilThereAreEnough) {
  LogitEditor editor = Editor({.bias = {{.token = 8, .bias = 5}}, .min_tokens = 2});
  const Edits held = {{7, {1, -kInfinity}}, {8, {1, -kInfinity}}};
  EXPECT_EQ(EditsOf(editor), held);
  editor.Append(1);
  EXPECT_EQ(EditsOf(editor), held);
  editor.Append(1);
  EXPECT_EQ(EditsOf(editor), (Edits{{8, {1, 5}}}));
}

TEST(LogitEditorTest, SaysBeforeTheTokensAreKnownWhetherThereMayBeEdits) {
  for (const LogitRules& rules :
       {LogitRules{.frequency_penalty = 1}, LogitRules{.repetition_penalty = 2},
        LogitRules{.bias = {{.token = 3, .bias = 2}}}, LogitRules{.min_tokens = 2}, LogitRules{}}) {
    LogitEditor known = Editor(rules);
    for (int32_t num_tokens = 0; num_tokens < 4; ++num_tokens) {
      EXPECT_EQ(Editor(rules).MayEdit(num_tokens), !EditsOf(known).empty()) << num_tokens;
      EXPECT_EQ(known.MayEdit(0), !EditsOf(known).empty()) << num_tokens;
      known.Append(20 + num_tokens);
    }
  }
}

TEST(LogitRulesTest, DefaultsAskForNothing) {
  EXPECT_TRUE(LogitRules{}.IsEmpty());
  EXPECT_FALSE(LogitRules{.presence_penalty = -1}.IsEmpty());
  EXPECT_FALSE(LogitRules{.frequency_penalty = 1}.IsEmpty());
  EXPECT_FALSE(LogitRules{.repetition_penalty = 2}.IsEmpty());
  EXPECT_FALSE((LogitRules{.bias = {{.token = 1, .bias = 1}}}.IsEmpty()));
  EXPECT_FALSE(LogitRules{.min_tokens = 1}.IsEmpty());
}

}  // namespace
}  // namespace nsa
