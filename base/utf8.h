#pragma once
// UTF-8 as it arrives in pieces: what is complete, what still waits for bytes, what can never be
// valid.

#include <cstdint>
#include <string>
#include <string_view>

namespace nsa {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8State : uint8_t { kComplete, kIncomplete, kInvalid };

// What stands at the front of a non-empty string.
struct Utf8Scan {
  Utf8State state;
  // kComplete: bytes of the code point; kIncomplete: all bytes given are a proper prefix of one;
  // kInvalid: bytes that one U+FFFD replaces (the longest prefix of a code point, at least 1).
  int64_t num_bytes;
};
Utf8Scan ScanUtf8(std::string_view bytes);

// True if `text` is well-formed: no overlong forms, no surrogates, nothing above U+10FFFF, nothing
// cut off.
bool IsValidUtf8(std::string_view text);

// `text` cut to at most `max_bytes`, never inside a code point; ill-formed bytes become U+FFFD
// before the cut.
std::string ClipUtf8(std::string_view text, int64_t max_bytes);

// Turns a stream of bytes into valid UTF-8.
class Utf8Stream {
 public:
  // The text that is complete with these bytes. Ill-formed bytes become U+FFFD.
  std::string Push(std::string_view bytes);
  // U+FFFD if the stream ends inside a code point, else nothing.
  std::string Finish();
  bool has_pending() const { return !pending_.empty(); }

 private:
  std::string pending_;  // a proper prefix of one code point
};

}  // namespace nsa
