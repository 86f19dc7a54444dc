#pragma once
// The spelling of bytes in byte-level vocabularies: each byte is one printable code point, "Ġ" is a
// space.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nsa::hf {

// The bytes that `spelling` stands for; nothing if a code point of it stands for no byte.
// Precondition: valid UTF-8.
std::optional<std::string> BytesOfSpelling(std::string_view spelling);

}  // namespace nsa::hf
