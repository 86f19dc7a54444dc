#include "clients/cli/prompt.h"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>

namespace nsa::cli {
namespace {

// The largest message that the server takes; a longer prompt would be refused without a clear word.
constexpr size_t kMaxPromptBytes = size_t{16} << 20;

// Returns an error message, empty if all is well.
std::string ReadAll(const std::string& file, std::string* text) {
  std::ifstream opened;
  if (file != "-") {
    // Reading a directory throws, and a device may never end.
    std::error_code error;
    const auto kind = std::filesystem::status(file, error).type();
    if (kind == std::filesystem::file_type::directory) return file + " is a directory";
    opened.open(file, std::ios::binary);
  }
  std::istream& stream = file == "-" ? std::cin : opened;
  if (!stream) return "cannot read " + file;
  char chunk[1 << 16];
  while (text->size() <= kMaxPromptBytes && stream.read(chunk, sizeof(chunk)).gcount() > 0) {
    text->append(chunk, stream.gcount());
  }
  if (text->size() <= kMaxPromptBytes) return "";
  return file + " has more than " + std::to_string(kMaxPromptBytes) + " bytes";
}

// Bytes of a code point by its first byte; 0 if none begins with it.
int NumBytes(uint8_t first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return 2;
  if (first >= 0xE0 && first <= 0xEF) return 3;
  return first >= 0xF0 && first <= 0xF4 ? 4 : 0;
}

}  // namespace

std::string ReadPrompt(const Options& options, std::string* prompt) {
  if (!options.file.empty()) {
    std::string error = ReadAll(options.file, prompt);
    if (!error.empty()) return error;
  }
  for (size_t i = 0; i < options.words.size(); ++i) {
    if (i > 0) *prompt += ' ';
    *prompt += options.words[i];
  }
  return IsValidUtf8(*prompt) ? "" : "the prompt is not valid UTF-8";
}

bool IsValidUtf8(std::string_view text) {
  for (size_t begin = 0; begin < text.size();) {
    const auto first = static_cast<uint8_t>(text[begin]);
    const int num_bytes = NumBytes(first);
    if (num_bytes == 0 || begin + num_bytes > text.size()) return false;
    uint32_t code_point = num_bytes == 1 ? first : first & (0x7FU >> num_bytes);
    for (int i = 1; i < num_bytes; ++i) {
      const auto byte = static_cast<uint8_t>(text[begin + i]);
      if ((byte & 0xC0) != 0x80) return false;
      code_point = code_point << 6 | (byte & 0x3FU);
    }
    const bool is_surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    const bool is_overlong =
        (num_bytes == 3 && code_point < 0x800) || (num_bytes == 4 && code_point < 0x10000);
    if (is_surrogate || is_overlong || code_point > 0x10FFFF) return false;
    begin += num_bytes;
  }
  return true;
}

}  // namespace nsa::cli
