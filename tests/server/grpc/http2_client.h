#pragma once
// Http2Client: a client that sends whatever HTTP/2 frames a test wants.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace nsa {

enum class FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kRstStream = 3,
  kSettings = 4,
  kPing = 6,
  kGoAway = 7,
};

struct Frame {
  FrameType type = FrameType::kData;
  uint8_t flags = 0;
  uint32_t stream = 0;
  std::string payload;

  // The 32-bit number at a place of the payload; 0 if it ends before.
  uint32_t Number(size_t offset) const;
};
inline constexpr uint8_t kEndStream = 1, kAck = 1, kEndHeaders = 4;
inline constexpr uint32_t kEnhanceYourCalm = 11;

class Http2Client {
 public:
  explicit Http2Client(int port);
  ~Http2Client();
  Http2Client(const Http2Client&) = delete;
  Http2Client& operator=(const Http2Client&) = delete;

  // Preface and empty settings.
  bool Begin();
  // False if the peer does not take it.
  bool Send(const Frame& frame);
  bool SendBytes(const std::string& bytes);
  // The next frame of the peer; nothing if the connection ends or the time is over.
  std::optional<Frame> Receive(absl::Duration timeout);
  // The same, of this type; others are dropped.
  std::optional<Frame> ReceiveOf(FrameType type, absl::Duration timeout);
  // Drops what has arrived, without waiting.
  void DropInput();
  bool WaitForClose(absl::Duration timeout);

 private:
  bool Fill(absl::Duration timeout);

  int fd_ = -1;
  bool closed_ = false;
  std::string input_;
};

std::string EncodeFrame(const Frame& frame);
// The headers of a call of this method on a stream.
Frame CallHeaders(uint32_t stream, const std::string& method);
// A message, after which nothing follows.
Frame CallMessage(uint32_t stream, const std::string& message);
Frame ResetStream(uint32_t stream);

}  // namespace nsa
