#include "tests/server/grpc/http2_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "absl/time/clock.h"
#include "base/check.h"

namespace nsa {
namespace {

constexpr size_t kHeaderBytes = 9;
constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

void AppendNumber(uint32_t value, int num_bytes, std::string* bytes) {
  for (int i = num_bytes - 1; i >= 0; --i) *bytes += static_cast<char>(value >> (8 * i) & 0xFF);
}

uint32_t NumberAt(const std::string& bytes, size_t offset, size_t num_bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < num_bytes; ++i) {
    value = value << 8 | static_cast<uint8_t>(bytes[offset + i]);
  }
  return value;
}

// A literal header that enters no table (RFC 7541, 6.2.2).
void AppendHeader(const std::string& name, const std::string& value, std::string* block) {
  NSA_CHECK(name.size() < 127 && value.size() < 127);
  *block += '\0';
  *block += static_cast<char>(name.size());
  *block += name;
  *block += static_cast<char>(value.size());
  *block += value;
}

}  // namespace

uint32_t Frame::Number(size_t offset) const {
  return offset + 4 <= payload.size() ? NumberAt(payload, offset, 4) : 0;
}

std::string EncodeFrame(const Frame& frame) {
  std::string bytes;
  AppendNumber(static_cast<uint32_t>(frame.payload.size()), 3, &bytes);
  bytes += static_cast<char>(frame.type);
  bytes += static_cast<char>(frame.flags);
  AppendNumber(frame.stream, 4, &bytes);
  return bytes.append(frame.payload);
}

Frame CallHeaders(uint32_t stream, const std::string& method) {
  Frame frame{.type = FrameType::kHeaders, .flags = kEndHeaders, .stream = stream};
  AppendHeader(":method", "POST", &frame.payload);
  AppendHeader(":scheme", "http", &frame.payload);
  AppendHeader(":path", method, &frame.payload);
  AppendHeader(":authority", "h", &frame.payload);
  AppendHeader("content-type", "application/grpc", &frame.payload);
  AppendHeader("te", "trailers", &frame.payload);
  return frame;
}

Frame CallMessage(uint32_t stream, const std::string& message) {
  Frame frame{.type = FrameType::kData, .flags = kEndStream, .stream = stream};
  frame.payload += '\0';  // not compressed
  AppendNumber(static_cast<uint32_t>(message.size()), 4, &frame.payload);
  frame.payload += message;
  return frame;
}

Frame ResetStream(uint32_t stream) {
  constexpr uint32_t kCancel = 8;
  Frame frame{.type = FrameType::kRstStream, .stream = stream};
  AppendNumber(kCancel, 4, &frame.payload);
  return frame;
}

Http2Client::Http2Client(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  NSA_CHECK_GE(fd_, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  closed_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0;
}

Http2Client::~Http2Client() { close(fd_); }

bool Http2Client::Begin() { return SendBytes(kPreface) && Send({.type = FrameType::kSettings}); }

bool Http2Client::Send(const Frame& frame) { return SendBytes(EncodeFrame(frame)); }

bool Http2Client::SendBytes(const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += static_cast<size_t>(n);
  }
  return true;
}

bool Http2Client::Fill(absl::Duration timeout) {
  if (closed_) return false;
  pollfd wanted{.fd = fd_, .events = POLLIN, .revents = 0};
  const auto wait_ms = static_cast<int>(absl::ToInt64Milliseconds(timeout));
  if (poll(&wanted, 1, std::max(wait_ms, 0)) <= 0) return false;
  std::array<char, 65536> chunk;
  const ssize_t n = recv(fd_, chunk.data(), chunk.size(), 0);
  closed_ = n <= 0;
  if (n > 0) input_.append(chunk.data(), static_cast<size_t>(n));
  return n > 0;
}

std::optional<Frame> Http2Client::Receive(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    if (input_.size() >= kHeaderBytes) {
      const size_t num_bytes = NumberAt(input_, 0, 3);
      if (input_.size() >= kHeaderBytes + num_bytes) {
        Frame frame{.type = static_cast<FrameType>(input_[3]),
                    .flags = static_cast<uint8_t>(input_[4]),
                    .stream = NumberAt(input_, 5, 4),
                    .payload = input_.substr(kHeaderBytes, num_bytes)};
        input_.erase(0, kHeaderBytes + num_bytes);
        return frame;
      }
    }
    if (!Fill(deadline - absl::Now())) return std::nullopt;
  }
}

std::optional<Frame> Http2Client::ReceiveOf(FrameType type, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    std::optional<Frame> frame = Receive(deadline - absl::Now());
    if (!frame.has_value() || frame->type == type) return frame;
  }
}

void Http2Client::DropInput() {
  while (Fill(absl::ZeroDuration())) input_.clear();
}

bool Http2Client::WaitForClose(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!closed_ && absl::Now() < deadline) Fill(deadline - absl::Now());
  return closed_;
}

}  // namespace nsa
