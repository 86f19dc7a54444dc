#include "engine/text/hf/bpe_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <utility>

namespace nsa::hf {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The bytes (token b is byte b), then `words`.
BpeSpec SpecOf(const std::vector<std::string>& words, const std::vector<BpeMerge>& merges) {
  BpeSpec spec;
  for (int byte = 0; byte < 256; ++byte) {
    spec.tokens.push_back({std::string(1, static_cast<char>(byte)), true});
  }
  for (const std::string& word : words) spec.tokens.push_back({word, true});
  spec.merges = merges;
  return spec;
}

std::vector<int32_t> Encode(const BpeModel& model, const std::string& word) {
  BpeModel::Scratch scratch;
  std::vector<int32_t> tokens;
  model.Encode(word, &scratch, &tokens);
  return tokens;
}

TEST(BpeModelTest, TheEarlierMergeWinsThenTheLeftOne) {
  const BpeModel model = *BpeModel::Make(
      SpecOf({"bc", "ab", "aa"}, {{'b', 'c', 256}, {'a', 'b', 257}, {'a', 'a', 258}}));
  EXPECT_THAT(Encode(model, "abc"), ElementsAre('a', 256));
  EXPECT_THAT(Encode(model, "ab"), ElementsAre(257));
  EXPECT_THAT(Encode(model, "aaa"), ElementsAre(258, 'a'));
  EXPECT_THAT(Encode(model, "aab"), ElementsAre('a', 257));
  EXPECT_THAT(Encode(model, ""), ElementsAre());
}

TEST(BpeModelTest, TokensThatNoMergeReachesNeedIgnoreMerges) {
  BpeSpec spec = SpecOf({"xyz"}, {});
  EXPECT_THAT(Encode(*BpeModel::Make(spec), "xyz"), ElementsAre('x', 'y', 'z'));
  spec.ignore_merges = true;
  EXPECT_THAT(Encode(*BpeModel::Make(spec), "xyz"), ElementsAre(256));
  EXPECT_THAT(Encode(*BpeModel::Make(spec), "xyzz"), ElementsAre('x', 'y', 'z', 'z'));
}

TEST(BpeModelTest, NoTextBecomesAControlToken) {
  for (const bool ignore_merges : {false, true}) {
    BpeSpec spec = SpecOf({"ab"}, {{'a', 'b', 256}});
    spec.tokens[256].is_encodable = false;
    spec.ignore_merges = ignore_merges;
    EXPECT_THAT(Encode(*BpeModel::Make(spec), "ab"), ElementsAre('a', 'b'));
  }
}

TEST(BpeModelTest, AMissingByteIsNamed) {
  BpeSpec spec = SpecOf({}, {});
  spec.tokens[0xF5].is_encodable = false;  // in no valid UTF-8
  EXPECT_TRUE(BpeModel::Make(spec).ok());
  spec.tokens[0x0A].is_encodable = false;
  EXPECT_THAT(std::string(BpeModel::Make(spec).status().message()), HasSubstr("0x0A"));
}

// The definition: again and again, merge the leftmost pair of the lowest rank.
std::vector<int32_t> Naive(const BpeSpec& spec, const std::string& word) {
  std::map<std::pair<int32_t, int32_t>, size_t> ranks;
  for (size_t i = 0; i < spec.merges.size(); ++i) {
    ranks[{spec.merges[i].left, spec.merges[i].right}] = i;
  }
  std::vector<int32_t> tokens;
  for (const char c : word) tokens.push_back(static_cast<uint8_t>(c));
  while (true) {
    size_t best = spec.merges.size();
    size_t position = 0;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto rank = ranks.find({tokens[i], tokens[i + 1]});
      if (rank == ranks.end() || rank->second >= best) continue;
      best = rank->second;
      position = i;
    }
    if (best == spec.merges.size()) return tokens;
    tokens[position] = spec.merges[best].result;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(position) + 1);
  }
}

// Random merges over three letters, so that pairs overlap and go stale all the time.
TEST(BpeModelTest, EqualsTheDefinitionOnRandomModels) {
  std::mt19937 random(7);
  const auto below = [&](size_t limit) { return static_cast<size_t>(random() % limit); };
  for (int round = 0; round < 200; ++round) {
    BpeSpec spec = SpecOf({}, {});
    std::vector<int32_t> usable = {'a', 'b', 'c'};
    for (int i = 0; i < 25; ++i) {
      const int32_t left = usable[below(usable.size())];
      const int32_t right = usable[below(usable.size())];
      const std::string bytes = spec.tokens[left].bytes + spec.tokens[right].bytes;
      const auto known = std::find_if(spec.tokens.begin(), spec.tokens.end(),
                                      [&](const auto& token) { return token.bytes == bytes; });
      const auto result = static_cast<int32_t>(known - spec.tokens.begin());
      if (known == spec.tokens.end()) {
        spec.tokens.push_back({bytes, true});
        usable.push_back(result);
      }
      spec.merges.push_back({left, right, result});
    }
    const BpeModel model = *BpeModel::Make(spec);
    for (int word = 0; word < 20; ++word) {
      std::string text(1 + below(40), 'a');
      for (char& c : text) c = static_cast<char>('a' + below(3));
      ASSERT_EQ(Encode(model, text), Naive(spec, text)) << text << " in round " << round;
    }
  }
}

// Quadratic work on this would take minutes.
TEST(BpeModelTest, AWordOfMegabytes) {
  const BpeModel model =
      *BpeModel::Make(SpecOf({"aa", "aaaa"}, {{'a', 'a', 256}, {256, 256, 257}}));
  const std::vector<int32_t> tokens = Encode(model, std::string(4'000'002, 'a'));
  EXPECT_EQ(tokens.size(), 1'000'001u);
  EXPECT_EQ(tokens.front(), 257);
  EXPECT_EQ(tokens.back(), 256);
}

}  // namespace
}  // namespace nsa::hf
