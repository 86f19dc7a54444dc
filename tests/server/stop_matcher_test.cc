#include "server/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace nsa {
namespace {

// What a stop string leaves of the whole text: the plain definition, without a stream.
struct Cut {
  std::string text;
  bool hit = false;
};
Cut CutOffline(const std::string& text, const std::vector<std::string>& stops, StopText kept) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, kept == StopText::kKept ? end : end - longest), true};
  }
  return {text, false};
}

// How much of the end of `text` could be the beginning of a stop string.
size_t NumHeldOffline(const std::string& text, const std::vector<std::string>& stops) {
  size_t held = 0;
  for (const std::string& stop : stops) {
    for (size_t length = 1; length < stop.size(); ++length) {
      if (text.ends_with(stop.substr(0, length))) held = std::max(held, length);
    }
  }
  return held;
}

TEST(StopMatcherTest, WithoutStopsEverythingPasses) {
  StopMatcher matcher({}, StopText::kCut);
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Push(""), "");
  EXPECT_EQ(matcher.Finish(), "");
  EXPECT_FALSE(matcher.hit());
}

TEST(StopMatcherTest, APossiblePrefixIsHeldBack) {
  StopMatcher matcher({"STOP"}, StopText::kCut);
  EXPECT_EQ(matcher.Push("one ST"), "one ");
  EXPECT_EQ(matcher.Push("AR, S"), "STAR, ");
  EXPECT_EQ(matcher.Push("TO"), "");
  EXPECT_FALSE(matcher.hit());
  EXPECT_EQ(matcher.Push("P and more"), "");
  EXPECT_TRUE(matcher.hit());
}

TEST(StopMatcherTest, WhatWasHeldComesOutAtTheEnd) {
  StopMatcher matcher({"STOP"}, StopText::kCut);
  EXPECT_EQ(matcher.Push("go STO"), "go ");
  EXPECT_EQ(matcher.Finish(), "STO");
}

TEST(StopMatcherTest, TheStopStringIsKeptWhereAsked) {
  StopMatcher matcher({"END"}, StopText::kKept);
  EXPECT_EQ(matcher.Push("the EN"), "the ");
  EXPECT_EQ(matcher.Push("D!"), "END");
  EXPECT_TRUE(matcher.hit());
}

TEST(StopMatcherTest, TheFirstToCompleteWinsThenTheLongest) {
  StopMatcher first({"abcd", "bc"}, StopText::kCut);
  EXPECT_EQ(first.Push("xabcd"), "xa");
  StopMatcher longest({"c", "abc"}, StopText::kCut);
  EXPECT_EQ(longest.Push("xabcd"), "x");
}

TEST(StopMatcherTest, CodePointsOfSeveralBytes) {
  StopMatcher matcher({"\xE2\x80\x94"}, StopText::kCut);  // a dash
  EXPECT_EQ(matcher.Push("a\xE2\x80\x9C"), "a\xE2\x80\x9C");
  EXPECT_EQ(matcher.Push("b\xE2\x80\x94 c"), "b");
  EXPECT_TRUE(matcher.hit());
}

TEST(StopMatcherTest, AnySplitEqualsTheOfflineCut) {
  std::mt19937 random(3);
  const auto random_text = [&](size_t length) {
    std::string text(length, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  int num_hits = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::string text = random_text(random() % 24);
    std::vector<std::string> stops;
    for (size_t i = random() % 4; i > 0; --i) stops.push_back(random_text(1 + random() % 7));
    const StopText kept = round % 2 == 0 ? StopText::kCut : StopText::kKept;
    const Cut expected = CutOffline(text, stops, kept);
    StopMatcher matcher(stops, kept);
    std::string released;
    for (size_t begin = 0; begin < text.size() && !matcher.hit();) {
      const size_t length = 1 + random() % 5;
      released += matcher.Push(std::string_view(text).substr(begin, length));
      begin += length;
      if (matcher.hit()) break;
      const std::string seen = text.substr(0, begin);
      // Nothing that could be part of a stop leaks, and nothing else is held.
      EXPECT_EQ(released, seen.substr(0, seen.size() - NumHeldOffline(seen, stops)));
    }
    EXPECT_EQ(matcher.hit(), expected.hit);
    if (!matcher.hit()) released += matcher.Finish();
    EXPECT_EQ(released, expected.text) << text;
    num_hits += matcher.hit();
  }
  EXPECT_GT(num_hits, 1000);
}

}  // namespace
}  // namespace nsa
