#pragma once
// RawClient: a blocking TCP client that speaks whatever bytes a test wants.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace nsa {

struct RawResponse {
  int status = 0;  // 0: the connection ended before a whole response
  std::string head;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunk framing removed
  std::vector<std::string> chunks;             // as framed
  bool complete = false;                       // false: the connection ended inside the body
};

class RawClient {
 public:
  // receive_buffer_bytes: SO_RCVBUF; 0: the system's.
  explicit RawClient(int port, int receive_buffer_bytes = 0);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  // False if the peer does not take it.
  bool Send(const std::string& bytes);
  // One response. `has_body` false: to a HEAD request.
  RawResponse Receive(bool has_body = true);
  // Bytes up to and including `end`; less if the connection ends or 10 s pass.
  std::string ReadUntil(const std::string& end);
  // Everything up to the end of the connection.
  std::string ReadToEnd();
  // True if the peer closes within the time; arriving bytes are dropped.
  bool WaitForClose(absl::Duration timeout);
  void HalfClose();  // ends the sending direction
  void Close();      // both, in order
  void Reset();      // abruptly (RST)

 private:
  bool Fill();  // reads more into buffer_; false at the end
  int fd_ = -1;
  std::string buffer_;
};

// Requests.
std::string Get(const std::string& path, const std::string& extra_headers = "");
std::string PostJson(const std::string& path, const std::string& body,
                     const std::string& extra_headers = "");

// One request on a connection of its own.
RawResponse Fetch(int port, const std::string& request);

}  // namespace nsa
