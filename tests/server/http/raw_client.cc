#include "tests/server/http/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/check.h"

namespace nsa {
namespace {

constexpr int kReadTimeoutMs = 10000;

}  // namespace

RawClient::RawClient(int port, int receive_buffer_bytes)
    : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  NSA_CHECK_GE(fd_, 0);
  if (receive_buffer_bytes > 0) {
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) Close();
}

RawClient::~RawClient() { Close(); }

bool RawClient::Send(const std::string& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += static_cast<size_t>(n);
  }
  return true;
}

bool RawClient::Fill() {
  if (fd_ < 0) return false;
  pollfd wanted{.fd = fd_, .events = POLLIN, .revents = 0};
  if (poll(&wanted, 1, kReadTimeoutMs) <= 0) return false;
  std::array<char, 65536> chunk;
  const ssize_t n = recv(fd_, chunk.data(), chunk.size(), 0);
  if (n <= 0) return false;
  buffer_.append(chunk.data(), static_cast<size_t>(n));
  return true;
}

std::string RawClient::ReadUntil(const std::string& end) {
  size_t found = 0;
  while ((found = buffer_.find(end)) == std::string::npos) {
    if (!Fill()) return std::exchange(buffer_, "");
  }
  std::string head = buffer_.substr(0, found + end.size());
  buffer_.erase(0, found + end.size());
  return head;
}

std::string RawClient::ReadToEnd() {
  while (Fill()) {
  }
  return std::exchange(buffer_, "");
}

RawResponse RawClient::Receive(bool has_body) {
  RawResponse response;
  response.head = ReadUntil("\r\n\r\n");
  const std::vector<std::string> lines = absl::StrSplit(response.head, "\r\n");
  if (response.head.size() < 16 || !response.head.ends_with("\r\n\r\n")) return response;
  response.status = std::stoi(response.head.substr(9, 3));
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::vector<std::string> parts = absl::StrSplit(lines[i], absl::MaxSplits(": ", 1));
    if (parts.size() == 2) response.headers[absl::AsciiStrToLower(parts[0])] = parts[1];
  }
  if (!has_body || response.status == 204) {
    response.complete = true;
  } else if (response.headers.contains("transfer-encoding")) {
    for (;;) {
      const std::string size_line = ReadUntil("\r\n");
      if (!size_line.ends_with("\r\n")) return response;
      const size_t num_bytes = std::stoul(size_line, nullptr, 16);
      while (buffer_.size() < num_bytes + 2) {
        if (!Fill()) return response;
      }
      if (num_bytes > 0) response.chunks.push_back(buffer_.substr(0, num_bytes));
      response.body += buffer_.substr(0, num_bytes);
      NSA_CHECK(buffer_.substr(num_bytes, 2) == "\r\n");
      buffer_.erase(0, num_bytes + 2);
      if (num_bytes == 0) break;
    }
    response.complete = true;
  } else if (response.headers.contains("content-length")) {
    const size_t num_bytes = std::stoul(response.headers["content-length"]);
    while (buffer_.size() < num_bytes) {
      if (!Fill()) return response;
    }
    response.body = buffer_.substr(0, num_bytes);
    buffer_.erase(0, num_bytes);
    response.complete = true;
  } else {
    response.body = ReadToEnd();
    response.complete = true;
  }
  return response;
}

bool RawClient::WaitForClose(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (absl::Now() < deadline) {
    pollfd wanted{.fd = fd_, .events = POLLIN, .revents = 0};
    const auto wait_ms = static_cast<int>(absl::ToInt64Milliseconds(deadline - absl::Now()));
    if (poll(&wanted, 1, wait_ms) <= 0) return false;
    std::array<char, 65536> chunk;
    if (recv(fd_, chunk.data(), chunk.size(), 0) <= 0) return true;
  }
  return false;
}

void RawClient::HalfClose() { shutdown(fd_, SHUT_WR); }

void RawClient::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

void RawClient::Reset() {
  const linger hard{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  Close();
}

std::string Get(const std::string& path, const std::string& extra_headers) {
  return absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: test\r\n", extra_headers, "\r\n");
}

std::string PostJson(const std::string& path, const std::string& body,
                     const std::string& extra_headers) {
  return absl::StrCat("POST ", path,
                      " HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
                      "Content-Length: ",
                      body.size(), "\r\n", extra_headers, "\r\n", body);
}

RawResponse Fetch(int port, const std::string& request) {
  RawClient client(port);
  client.Send(request);
  return client.Receive(!request.starts_with("HEAD "));
}

}  // namespace nsa
