#include "server/choice_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/fake_tokenizer.h"

namespace nsa {
namespace {

TokenEvent Token(int32_t token, FinishReason finish = FinishReason::kNone) {
  return {.has_token = true,
          .token = token,
          .logprob = -0.5F * static_cast<float>(token),
          .finish = finish};
}

// Token i of a FakeTokenizer with these pieces.
int32_t Piece(size_t i) { return FakeTokenizer::kFirstPiece + static_cast<int32_t>(i); }

struct Released {
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<TokenLogprob> logprobs;
  FinishReason finish = FinishReason::kNone;
};

void Append(GenerateEvent delta, Released* released) {
  EXPECT_TRUE(IsValidUtf8(delta.text));
  EXPECT_EQ(delta.tokens.size(), delta.logprobs.size());
  released->text += delta.text;
  released->tokens.insert(released->tokens.end(), delta.tokens.begin(), delta.tokens.end());
  released->logprobs.insert(released->logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
  released->finish = delta.finish;
}

// Pushes the pieces as tokens; the last one with `last`, unless a stop string comes first.
Released PushAll(const std::vector<std::string>& pieces, const std::vector<std::string>& stop,
                 StopText stop_text, FinishReason last) {
  const FakeTokenizer tokenizer(pieces);
  ChoiceStream stream(
      {.tokenizer = &tokenizer, .wants_logprobs = true, .stop = stop, .stop_text = stop_text});
  Released released;
  for (size_t i = 0; i < pieces.size() && !stream.finished(); ++i) {
    const bool is_last = i + 1 == pieces.size();
    Append(stream.Push(Token(Piece(i), is_last ? last : FinishReason::kNone)), &released);
    EXPECT_EQ(stream.num_tokens(), static_cast<int64_t>(i) + 1);
  }
  EXPECT_TRUE(stream.finished());
  return released;
}

TEST(ChoiceStreamTest, TokensWaitForTheirText) {
  const FakeTokenizer tokenizer({"a ST", "OP"});
  ChoiceStream stream({.tokenizer = &tokenizer, .wants_logprobs = true, .stop = {"STOP!"}});
  const GenerateEvent held = stream.Push(Token(Piece(0)));
  EXPECT_EQ(held.text, "a ");
  EXPECT_TRUE(held.tokens.empty());
  EXPECT_TRUE(stream.Push(Token(Piece(1))).tokens.empty());
  const GenerateEvent rest = stream.Push(Token('?'));
  EXPECT_EQ(rest.text, "STOP?");
  EXPECT_EQ(rest.tokens, (std::vector<int32_t>{Piece(0), Piece(1), '?'}));
  ASSERT_EQ(rest.logprobs.size(), 3u);
  EXPECT_EQ(rest.logprobs[1].bytes, "OP");
  EXPECT_EQ(rest.logprobs[2].logprob, -0.5 * '?');
  EXPECT_EQ(rest.finish, FinishReason::kNone);
}

TEST(ChoiceStreamTest, TracesStayInStepWithTheTokens) {
  const FakeTokenizer tokenizer({"one", " tw", "oX", "YZ"});
  const auto shape = std::make_shared<TraceShape>();
  ChoiceStream stream({.tokenizer = &tokenizer, .trace_shape = shape, .stop = {"twoXY"}});
  const auto push = [&](size_t i) {
    TokenEvent event = Token(Piece(i));
    event.trace = std::make_shared<TokenTrace>(TokenTrace{.position = static_cast<int64_t>(i)});
    return stream.Push(event);
  };
  const GenerateEvent first = push(0);
  ASSERT_EQ(first.traces.size(), 1u);
  EXPECT_EQ(first.traces[0]->position, 0);
  EXPECT_EQ(first.trace_shape, shape);
  EXPECT_TRUE(push(1).traces.empty());  // " tw" may be the stop string's beginning
  EXPECT_TRUE(push(2).traces.empty());
  const GenerateEvent last = push(3);  // what lies behind the cut is dropped with its traces
  EXPECT_EQ(last.tokens, std::vector<int32_t>{Piece(1)});
  ASSERT_EQ(last.traces.size(), 1u);
  EXPECT_EQ(last.traces[0]->position, 1);
}

TEST(ChoiceStreamTest, ACodePointsTokensComeWithIt) {
  const FakeTokenizer tokenizer;
  ChoiceStream stream({.tokenizer = &tokenizer});
  EXPECT_EQ(stream.Push(Token('a')).tokens, std::vector<int32_t>{'a'});
  EXPECT_TRUE(stream.Push(Token(0xC3)).tokens.empty());
  const GenerateEvent whole = stream.Push(Token(0xA9));
  EXPECT_EQ(whole.text, "\xC3\xA9");
  EXPECT_EQ(whole.tokens, (std::vector<int32_t>{0xC3, 0xA9}));
  EXPECT_TRUE(whole.logprobs.empty());
}

TEST(ChoiceStreamTest, UnfinishedBytesBecomeOneReplacementAtTheEnd) {
  const Released released = PushAll({"ok ", "\xF0\x9F"}, {}, StopText::kCut, FinishReason::kLength);
  EXPECT_EQ(released.text, "ok \xEF\xBF\xBD");
  EXPECT_EQ(released.tokens.size(), 2u);
  EXPECT_EQ(released.finish, FinishReason::kLength);
}

TEST(ChoiceStreamTest, TokensBehindTheCutAreDroppedOnesAcrossItKept) {
  const Released across =
      PushAll({"one", " tw", "oX", "YZ"}, {"XY"}, StopText::kCut, FinishReason::kLength);
  EXPECT_EQ(across.text, "one two");
  EXPECT_EQ(across.tokens, (std::vector<int32_t>{Piece(0), Piece(1), Piece(2)}));
  EXPECT_EQ(across.finish, FinishReason::kStop);
  const Released kept =
      PushAll({"one", " tw", "oX", "YZ"}, {"XY"}, StopText::kKept, FinishReason::kLength);
  EXPECT_EQ(kept.text, "one twoXY");
  EXPECT_EQ(kept.tokens.size(), 4u);
  const Released at_once = PushAll({"XY"}, {"XY"}, StopText::kCut, FinishReason::kLength);
  EXPECT_EQ(at_once.text, "");
  EXPECT_TRUE(at_once.tokens.empty());
  EXPECT_EQ(at_once.finish, FinishReason::kStop);
}

TEST(ChoiceStreamTest, AStopTokensTextIsHiddenUnlessAskedFor) {
  const Released cut = PushAll({"end", "."}, {}, StopText::kCut, FinishReason::kStop);
  EXPECT_EQ(cut.text, "end");
  EXPECT_EQ(cut.tokens.size(), 2u);
  EXPECT_EQ(cut.finish, FinishReason::kStop);
  EXPECT_EQ(PushAll({"end", "."}, {}, StopText::kKept, FinishReason::kStop).text, "end.");
}

TEST(ChoiceStreamTest, ATokenThatCompletesTheAnswerIsPartOfIt) {
  const FakeTokenizer tokenizer;
  ChoiceStream stream({.tokenizer = &tokenizer});
  EXPECT_EQ(stream.Push(Token('{')).text, "{");
  TokenEvent last = Token('}', FinishReason::kStop);
  last.completes_answer = true;
  EXPECT_EQ(stream.Push(last).text, "}");
  EXPECT_TRUE(stream.finished());
}

TEST(ChoiceStreamTest, EosReleasesWhatWasHeld) {
  const FakeTokenizer tokenizer;
  ChoiceStream stream({.tokenizer = &tokenizer, .stop = {"ab"}});
  EXPECT_EQ(stream.Push(Token('a')).text, "");
  const GenerateEvent last = stream.Push(Token(FakeTokenizer::kEos, FinishReason::kStop));
  EXPECT_EQ(last.text, "a");
  EXPECT_EQ(last.tokens, (std::vector<int32_t>{'a', FakeTokenizer::kEos}));
}

TEST(ChoiceStreamTest, AStopStringInTheLastTokenWinsOverTheLength) {
  const Released released = PushAll({"a", "bX"}, {"X"}, StopText::kCut, FinishReason::kLength);
  EXPECT_EQ(released.text, "ab");
  EXPECT_EQ(released.finish, FinishReason::kStop);
}

TEST(ChoiceStreamTest, AlternativesCarryTheirBytes) {
  const FakeTokenizer tokenizer;
  ChoiceStream stream({.tokenizer = &tokenizer, .wants_logprobs = true});
  TokenEvent event = Token('a');
  event.top_logprobs = {{'a', -0.1F}, {0xFF, -2.0F}};
  const GenerateEvent delta = stream.Push(event);
  ASSERT_EQ(delta.logprobs[0].top.size(), 2u);
  EXPECT_EQ(delta.logprobs[0].top[1].token, 0xFF);
  EXPECT_EQ(delta.logprobs[0].top[1].bytes, "\xFF");
  EXPECT_EQ(delta.logprobs[0].top[1].logprob, -2.0F);
}

// What the first stop string to complete, or the longest of several, leaves of the text.
std::string CutOffline(const std::string& text, const std::vector<std::string>& stops, bool* hit) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    *hit = longest > 0;
    if (*hit) return text.substr(0, end - longest);
  }
  *hit = false;
  return text;
}

TEST(ChoiceStreamTest, AnySplitIntoTokensGivesTheOfflineCut) {
  std::mt19937 random(11);
  const std::vector<std::string> alphabet = {"a", "b", "\xC3\xA9", "\xE2\x82\xAC",
                                             "\xF0\x9F\xA6\x8A"};
  int num_hits = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string text;
    for (size_t i = 1 + random() % 12; i > 0; --i) text += alphabet[random() % alphabet.size()];
    std::vector<std::string> stops(random() % 2 + 1);
    for (std::string& stop : stops) {
      for (size_t i = 1 + random() % 3; i > 0; --i) stop += alphabet[random() % 4];
    }
    std::vector<std::string> pieces;
    for (size_t begin = 0; begin < text.size();) {
      const size_t num_bytes = 1 + random() % 5;  // also inside code points
      pieces.push_back(text.substr(begin, num_bytes));
      begin += num_bytes;
    }
    bool hit = false;
    const std::string expected = CutOffline(text, stops, &hit);
    const Released released = PushAll(pieces, stops, StopText::kCut, FinishReason::kLength);
    EXPECT_EQ(released.text, expected) << text;
    EXPECT_EQ(released.finish, hit ? FinishReason::kStop : FinishReason::kLength);
    // The released tokens are the fewest whose bytes cover the text.
    std::string covered;
    for (size_t i = 0; i < released.tokens.size(); ++i) {
      EXPECT_EQ(released.tokens[i], Piece(i));
      if (hit) {
        EXPECT_LT(covered.size(), expected.size());
      }
      covered += pieces[i];
    }
    EXPECT_TRUE(covered.starts_with(expected));
    if (!hit) {
      EXPECT_EQ(released.tokens.size(), pieces.size());
    }
    num_hits += hit;
  }
  EXPECT_GT(num_hits, 1000);
}

TEST(MakeLogprob, OfAnImpossibleTokenIsFinite) {
  const FakeTokenizer tokenizer;
  const double infinity = std::numeric_limits<double>::infinity();
  const TokenLogprob logprob =
      MakeLogprob(tokenizer, 'a', -infinity, {{.token = 'b', .logprob = std::nanf("")}});
  EXPECT_EQ(logprob.logprob, -9999.0);
  EXPECT_EQ(logprob.top[0].logprob, -9999.0);
  EXPECT_EQ(MakeLogprob(tokenizer, 'a', -0.25, {}).logprob, -0.25);
}

}  // namespace
}  // namespace nsa
