#include "base/utf8.h"

#include <utility>

namespace nsa {
namespace {

// A lead byte's continuation count and the range of the first continuation byte. The narrower
// ranges exclude overlong forms (E0, F0), surrogates (ED) and values above U+10FFFF (F4).
struct LeadByte {
  int num_continuations;  // -1: not a lead byte
  uint8_t low, high;
};

LeadByte ClassifyLead(uint8_t byte) {
  if (byte < 0x80) return {0, 0, 0};
  if (byte >= 0xC2 && byte <= 0xDF) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {-1, 0, 0};
}

}  // namespace

Utf8Scan ScanUtf8(std::string_view bytes) {
  const LeadByte lead = ClassifyLead(static_cast<uint8_t>(bytes[0]));
  if (lead.num_continuations < 0) return {Utf8State::kInvalid, 1};
  uint8_t low = lead.low;
  uint8_t high = lead.high;
  for (int i = 1; i <= lead.num_continuations; ++i) {
    if (i == static_cast<int>(bytes.size())) return {Utf8State::kIncomplete, i};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    if (byte < low || byte > high) return {Utf8State::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8State::kComplete, lead.num_continuations + 1};
}

bool IsValidUtf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Scan scan = ScanUtf8(text);
    if (scan.state != Utf8State::kComplete) return false;
    text.remove_prefix(scan.num_bytes);
  }
  return true;
}

std::string ClipUtf8(std::string_view text, int64_t max_bytes) {
  Utf8Stream stream;
  std::string valid = stream.Push(text);
  valid += stream.Finish();
  int64_t kept = 0;
  while (kept < static_cast<int64_t>(valid.size())) {
    const int64_t next = kept + ScanUtf8(std::string_view(valid).substr(kept)).num_bytes;
    if (next > max_bytes) break;
    kept = next;
  }
  valid.resize(kept);
  return valid;
}

std::string Utf8Stream::Push(std::string_view bytes) {
  std::string joined = std::exchange(pending_, {});
  joined += bytes;
  std::string text;
  std::string_view rest = joined;
  while (!rest.empty()) {
    const Utf8Scan scan = ScanUtf8(rest);
    if (scan.state == Utf8State::kIncomplete) {
      pending_ = rest;
      break;
    }
    text +=
        scan.state == Utf8State::kComplete ? rest.substr(0, scan.num_bytes) : kReplacementCharacter;
    rest.remove_prefix(scan.num_bytes);
  }
  return text;
}

std::string Utf8Stream::Finish() {
  if (pending_.empty()) return {};
  pending_.clear();
  return std::string(kReplacementCharacter);
}

}  // namespace nsa
