#include "server/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace nsa {

StopMatcher::StopMatcher(const std::vector<std::string>& stops, StopText stop_text)
    : stop_text_(stop_text) {
  for (const std::string& stop : stops) patterns_.push_back(MakePattern(stop));
}

StopMatcher::Pattern StopMatcher::MakePattern(const std::string& stop) {
  NSA_CHECK(!stop.empty()) << "an empty stop string";
  Pattern pattern{.text = stop, .fallback = std::vector<int64_t>(stop.size())};
  for (size_t i = 1; i < stop.size(); ++i) {
    int64_t state = pattern.fallback[i - 1];
    while (state > 0 && stop[state] != stop[i]) state = pattern.fallback[state - 1];
    pattern.fallback[i] = state + (stop[state] == stop[i] ? 1 : 0);
  }
  return pattern;
}

void StopMatcher::Advance(Pattern& pattern, char byte) {
  int64_t& state = pattern.num_matched;
  while (state > 0 && pattern.text[state] != byte) state = pattern.fallback[state - 1];
  if (pattern.text[state] == byte) ++state;
}

std::string StopMatcher::Push(std::string_view text) {
  NSA_CHECK(!hit_) << "text behind a stop string";
  for (const char byte : text) {
    held_ += byte;
    int64_t stop_bytes = 0;  // of the longest stop that completes here
    for (Pattern& pattern : patterns_) {
      Advance(pattern, byte);
      const auto pattern_bytes = static_cast<int64_t>(pattern.text.size());
      if (pattern.num_matched == pattern_bytes) stop_bytes = std::max(stop_bytes, pattern_bytes);
    }
    if (stop_bytes > 0) {
      hit_ = true;
      if (stop_text_ == StopText::kCut) held_.erase(held_.size() - stop_bytes);
      return std::exchange(held_, {});
    }
  }
  int64_t num_held = 0;
  for (const Pattern& pattern : patterns_) num_held = std::max(num_held, pattern.num_matched);
  std::string released = held_.substr(0, held_.size() - num_held);
  held_.erase(0, released.size());
  return released;
}

std::string StopMatcher::Finish() { return std::exchange(held_, {}); }

}  // namespace nsa
