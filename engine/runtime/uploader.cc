#include "engine/runtime/uploader.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace nsa {
namespace {

constexpr int64_t kPieceBytes = int64_t{8} << 20;

}  // namespace

void Uploader::Copy(const void* from, void* to, int64_t num_bytes) {
  if (device_ == nullptr) {
    std::memcpy(to, from, static_cast<size_t>(num_bytes));
    return;
  }
  for (int64_t done = 0; done < num_bytes; done += kPieceBytes) {
    CopyPiece(static_cast<const uint8_t*>(from) + done, static_cast<uint8_t*>(to) + done,
              std::min(kPieceBytes, num_bytes - done));
  }
}

void Uploader::CopyPiece(const uint8_t* from, uint8_t* to, int64_t num_bytes) {
  if (!pinned_) pinned_.emplace(Device::kNumMarks * kPieceBytes, device_);
  const int half = static_cast<int>(num_pieces_ % Device::kNumMarks);
  if (num_pieces_ >= Device::kNumMarks) status_.Update(device_->Await(half));
  uint8_t* const pinned = pinned_->data() + half * kPieceBytes;
  std::memcpy(pinned, from, static_cast<size_t>(num_bytes));
  device_->Upload(pinned, to, num_bytes);
  device_->Mark(half);
  ++num_pieces_;
}

absl::Status Uploader::Finish() {
  const int num_used = static_cast<int>(std::min<int64_t>(num_pieces_, Device::kNumMarks));
  for (int half = 0; half < num_used; ++half) status_.Update(device_->Await(half));
  num_pieces_ = 0;
  pinned_.reset();
  return status_;
}

DeviceBuffer CopyToDevice(const void* values, int64_t num_bytes, Device* device) {
  DeviceBuffer buffer(num_bytes, device);
  Uploader uploader(device);
  uploader.Copy(values, buffer.data(), num_bytes);
  const absl::Status status = uploader.Finish();
  NSA_CHECK(status.ok()) << status;
  return buffer;
}

}  // namespace nsa
