#pragma once
// A tokenizer.json that a test can read: the 256 bytes (token b is byte b), a few merges, a control
// token and an added one.

#include <nlohmann/json.hpp>
#include <string>

namespace nsa {

inline constexpr int kTinyThe = 258;   // " the"; by way of 256 "th" and 257 "the"
inline constexpr int kTinyEnd = 259;   // <|end|>, a control token
inline constexpr int kTinyCall = 260;  // <call>, added text
inline constexpr int kTinyVocab = 261;

// How the byte alphabet spells `bytes`.
inline std::string SpelledBytes(const std::string& bytes) {
  std::string spelled;
  for (const char c : bytes) {
    const int byte = static_cast<uint8_t>(c);
    int code_point = byte;
    if (byte < 33) code_point = 256 + byte;
    if (byte >= 127 && byte <= 160) code_point = 256 + 33 + byte - 127;
    if (byte == 173) code_point = 323;
    if (code_point < 0x80) {
      spelled += static_cast<char>(code_point);
    } else {
      spelled += static_cast<char>(0xC0 | code_point >> 6);
      spelled += static_cast<char>(0x80 | (code_point & 0x3F));
    }
  }
  return spelled;
}

inline nlohmann::json TinyBpeFile() {
  auto file = nlohmann::json::parse(R"({
    "added_tokens": [{"id": 259, "content": "<|end|>", "special": true, "normalized": false},
                     {"id": 260, "content": "<call>", "special": false, "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": {"type": "ByteLevel"},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "merges": ["t h", "th e", "\u0120 the"], "vocab": {}}
  })");
  auto& vocab = file["model"]["vocab"];
  for (int byte = 0; byte < 256; ++byte) {
    vocab[SpelledBytes(std::string(1, static_cast<char>(byte)))] = byte;
  }
  vocab["th"] = 256;
  vocab["the"] = 257;
  vocab[SpelledBytes(" the")] = kTinyThe;
  return file;
}

}  // namespace nsa
