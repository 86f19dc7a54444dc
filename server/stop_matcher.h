#pragma once
// StopMatcher: finds stop strings in a text that arrives in pieces and never lets a part of one
// out.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nsa {

enum class StopText : uint8_t { kCut, kKept };  // is the stop string part of the text?

// The stop that completes first wins; of several that complete at the same byte, the longest. What
// is released depends on the whole text alone, not on how it was split into pieces.
class StopMatcher {
 public:
  // Stops are non-empty.
  StopMatcher(const std::vector<std::string>& stops, StopText stop_text);

  // The text that is now certain to lie before every stop string. With the hit it ends at the stop
  // string (before it, or behind it with kKept), and the rest of `text` is dropped. Not to be
  // called after a hit.
  std::string Push(std::string_view text);
  // What was held back; call once at the end, unless there was a hit.
  std::string Finish();

  bool hit() const { return hit_; }

 private:
  // A Knuth-Morris-Pratt automaton; its state is how much of the stop string the text ends with.
  struct Pattern {
    std::string text;
    std::vector<int64_t> fallback;  // [length]: the state to try where the next byte does not match
    int64_t num_matched = 0;
  };
  static Pattern MakePattern(const std::string& stop);
  static void Advance(Pattern& pattern, char byte);

  std::vector<Pattern> patterns_;
  const StopText stop_text_;
  std::string held_;  // the end of the text, not yet released
  bool hit_ = false;
};

}  // namespace nsa
