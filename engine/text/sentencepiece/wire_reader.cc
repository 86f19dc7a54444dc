#include "engine/text/sentencepiece/wire_reader.h"

namespace nsa::sentencepiece {
namespace {

constexpr int kVarint = 0;
constexpr int kFixed64 = 1;
constexpr int kBytes = 2;
constexpr int kFixed32 = 5;
constexpr int kMaxVarintBytes = 10;

}  // namespace

bool WireReader::Next() {
  if (failed_ || rest_.empty()) return false;
  varint_ = 0;
  fixed32_ = 0;
  bytes_ = {};
  uint64_t tag = 0;
  failed_ = !ReadVarint(&tag) || tag >> 3 == 0 || tag >> 3 > (1U << 29) - 1;
  if (failed_) return false;
  field_ = static_cast<int>(tag >> 3);
  failed_ = !ReadValue(static_cast<int>(tag & 7));
  return !failed_;
}

bool WireReader::ReadVarint(uint64_t* value) {
  *value = 0;
  for (int i = 0; i < kMaxVarintBytes && !rest_.empty(); ++i) {
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    *value |= static_cast<uint64_t>(byte & 0x7F) << (7 * i);
    if (byte < 0x80) return true;
  }
  return false;
}

bool WireReader::ReadValue(int wire_type) {
  uint64_t num_bytes = 0;
  switch (wire_type) {
    case kVarint:
      return ReadVarint(&varint_);
    case kFixed64:
      num_bytes = sizeof(uint64_t);
      break;
    case kFixed32:
      num_bytes = sizeof(fixed32_);
      break;
    case kBytes:
      if (!ReadVarint(&num_bytes)) return false;
      break;
    default:
      return false;
  }
  if (num_bytes > rest_.size()) return false;
  if (wire_type == kFixed32) std::memcpy(&fixed32_, rest_.data(), sizeof(fixed32_));
  if (wire_type == kBytes) bytes_ = rest_.substr(0, num_bytes);
  rest_.remove_prefix(num_bytes);
  return true;
}

}  // namespace nsa::sentencepiece
