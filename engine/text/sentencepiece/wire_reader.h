#pragma once
// WireReader: walks over the fields of one serialized Protocol Buffers message.

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace nsa::sentencepiece {

class WireReader {
 public:
  explicit WireReader(std::string_view message) : rest_(message) {}

  // Moves to the next field; false at the end or where the message is malformed.
  bool Next();
  bool failed() const { return failed_; }

  int field() const { return field_; }
  // The field's value; which one is meaningful depends on how it was encoded. A value of another
  // encoding than the field's reads as zero or empty.
  uint64_t varint() const { return varint_; }
  std::string_view bytes() const { return bytes_; }
  float fixed32() const { return std::bit_cast<float>(fixed32_); }

 private:
  bool ReadVarint(uint64_t* value);
  bool ReadValue(int wire_type);

  std::string_view rest_;
  bool failed_ = false;
  int field_ = 0;
  uint64_t varint_ = 0;
  uint32_t fixed32_ = 0;
  std::string_view bytes_;
};

}  // namespace nsa::sentencepiece
