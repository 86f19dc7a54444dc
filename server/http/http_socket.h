#pragma once
// HttpSocket: a connection's bytes, with or without TLS. As Asio's sockets: at most one read and
// one write at a time, everything on the executor's strand.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "server/tls_files.h"

namespace nsa {

// Prepares `context` for a server: TLS 1.2 and later with these files.
absl::Status ConfigureTls(const TlsFiles& files, boost::asio::ssl::context* context);

class HttpSocket {
 public:
  using ErrorCode = boost::system::error_code;
  using OnDone = std::function<void(ErrorCode)>;
  using OnBytes = std::function<void(ErrorCode, size_t)>;

  // `tls` is null without TLS; else it outlives the socket.
  HttpSocket(const boost::asio::any_io_executor& executor, boost::asio::ssl::context* tls);

  // For the acceptor and for options.
  boost::asio::ip::tcp::socket& tcp() { return tcp_; }

  // Before anything else. Without TLS on_done runs at once.
  void AsyncHandshake(OnDone on_done);
  void AsyncReadSome(boost::asio::mutable_buffer buffer, OnBytes on_bytes);
  void AsyncWriteSome(boost::asio::const_buffer buffer, OnBytes on_bytes);
  // Tells the peer that nothing more comes; reading goes on. `owner` keeps the socket until it is
  // told.
  void ShutdownSend(std::shared_ptr<void> owner);
  // What is under way ends with an error. Idempotent.
  void Close();

 private:
  boost::asio::ip::tcp::socket tcp_;
  std::optional<boost::asio::ssl::stream<boost::asio::ip::tcp::socket&>> tls_;
};

}  // namespace nsa
