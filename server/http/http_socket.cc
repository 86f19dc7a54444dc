#include "server/http/http_socket.h"

#include <openssl/ssl.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace nsa {

namespace asio = boost::asio;

absl::Status ConfigureTls(const TlsFiles& files, asio::ssl::context* context) {
  HttpSocket::ErrorCode error;
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
  context->use_certificate_chain(asio::buffer(files.certificate), error);
  if (!error) context->use_private_key(asio::buffer(files.key), asio::ssl::context::pem, error);
  if (!error) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--tls-cert, --tls-key: ", error.message()));
}

HttpSocket::HttpSocket(const asio::any_io_executor& executor, asio::ssl::context* tls)
    : tcp_(executor) {
  if (tls != nullptr) tls_.emplace(tcp_, *tls);
}

void HttpSocket::AsyncHandshake(OnDone on_done) {
  if (!tls_.has_value()) return on_done({});
  tls_->async_handshake(asio::ssl::stream_base::server, std::move(on_done));
}

void HttpSocket::AsyncReadSome(asio::mutable_buffer buffer, OnBytes on_bytes) {
  if (!tls_.has_value()) return tcp_.async_read_some(buffer, std::move(on_bytes));
  tls_->async_read_some(buffer, [on_bytes = std::move(on_bytes)](ErrorCode error, size_t n) {
    // A peer that closes without TLS's own farewell: HTTP's framing says whether anything is
    // missing.
    on_bytes(error == asio::ssl::error::stream_truncated ? asio::error::eof : error, n);
  });
}

void HttpSocket::AsyncWriteSome(asio::const_buffer buffer, OnBytes on_bytes) {
  if (!tls_.has_value()) return tcp_.async_write_some(buffer, std::move(on_bytes));
  tls_->async_write_some(buffer, std::move(on_bytes));
}

void HttpSocket::ShutdownSend(std::shared_ptr<void> owner) {
  ErrorCode ignored;
  if (!tls_.has_value()) {
    tcp_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
    return;
  }
  // The peer's answer ends the read that is pending; its absence is the caller's timer's.
  tls_->async_shutdown([owner = std::move(owner)](ErrorCode /*error*/) {});
}

void HttpSocket::Close() {
  ErrorCode ignored;
  tcp_.close(ignored);
}

}  // namespace nsa
