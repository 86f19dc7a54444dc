#include "engine/text/hf/byte_alphabet.h"

#include <array>

namespace nsa::hf {
namespace {

constexpr int kFirstSubstitute =
    256;                             // code points that stand for unprintable bytes follow Latin-1
constexpr int kNumCodePoints = 324;  // 256 + 68 unprintable bytes
constexpr int16_t kNoByte = -1;

// Bytes that are spelled as the Latin-1 character of the same number.
constexpr bool IsPrintable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<int16_t, kNumCodePoints> MakeByteOfCodePoint() {
  std::array<int16_t, kNumCodePoints> table{};
  table.fill(kNoByte);
  int substitute = kFirstSubstitute;
  for (int byte = 0; byte < 256; ++byte) {
    table[IsPrintable(byte) ? byte : substitute++] = static_cast<int16_t>(byte);
  }
  return table;
}

constexpr std::array<int16_t, kNumCodePoints> kByteOfCodePoint = MakeByteOfCodePoint();

}  // namespace

std::optional<std::string> BytesOfSpelling(std::string_view spelling) {
  std::string bytes;
  for (size_t i = 0; i < spelling.size(); ++i) {
    int code_point = static_cast<uint8_t>(spelling[i]);
    if (code_point >= 0xE0) return std::nullopt;  // three bytes or more: above the table
    if (code_point >= 0x80) {
      code_point = (code_point & 0x1F) << 6 | (static_cast<uint8_t>(spelling[++i]) & 0x3F);
    }
    if (code_point >= kNumCodePoints || kByteOfCodePoint[code_point] == kNoByte) {
      return std::nullopt;
    }
    bytes += static_cast<char>(kByteOfCodePoint[code_point]);
  }
  return bytes;
}

}  // namespace nsa::hf
