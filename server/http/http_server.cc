#include "server/http/http_server.h"

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "base/thread_name.h"
#include "server/http/http_connection.h"

namespace nsa {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

// Connections over the limit that are open to be told so, or for a probe. One more closes the
// oldest, so that whoever says nothing keeps no probe out.
constexpr size_t kMaxRefused = 64;
constexpr auto kAcceptRetryDelay = std::chrono::milliseconds(100);
constexpr absl::Duration kMaxDrain = absl::Hours(24);

}  // namespace

class HttpServer::Impl {
 public:
  Impl(HttpOptions options, HttpHandler handler);
  ~Impl() { Shutdown(absl::InfinitePast()); }

  absl::Status Listen();
  void Run();
  int port() const { return port_; }
  int64_t num_connections() const;
  void StopAccepting();
  void Shutdown(absl::Time deadline);

 private:
  absl::Status ListenError(const boost::system::error_code& error) const;
  void Accept();
  void OnAccepted(const std::shared_ptr<HttpConnection>& connection);
  void OnClosed(const std::shared_ptr<HttpConnection>& connection);
  std::vector<std::shared_ptr<HttpConnection>> Connections() const;
  bool WaitUntilEmpty(absl::Time deadline);

  const std::shared_ptr<HttpHost> host_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  tcp::acceptor acceptor_;  // on a strand of its own
  asio::steady_timer retry_timer_;
  int port_ = 0;
  std::vector<std::thread> threads_;

  mutable std::mutex mutex_;  // not absl::Mutex, which ThreadSanitizer cannot see into
  std::condition_variable closed_;
  absl::flat_hash_set<std::shared_ptr<HttpConnection>> connections_;  // guarded by mutex_
  std::deque<std::shared_ptr<HttpConnection>> refused_;  // likewise; over the limit, oldest first
};

HttpServer::Impl::Impl(HttpOptions options, HttpHandler handler)
    : host_(std::make_shared<HttpHost>(std::move(options))),
      work_(host_->io.get_executor()),
      acceptor_(asio::make_strand(host_->io)),
      retry_timer_(acceptor_.get_executor()) {
  host_->handler = std::move(handler);
  host_->on_closed = [this](const std::shared_ptr<HttpConnection>& c) { OnClosed(c); };
}

absl::Status HttpServer::Impl::ListenError(const boost::system::error_code& error) const {
  return absl::FailedPreconditionError(absl::StrCat("HTTP cannot listen on ", host_->options.host,
                                                    ":", host_->options.port, ": ",
                                                    error.message()));
}

absl::Status HttpServer::Impl::Listen() {
  const HttpOptions& options = host_->options;
  if (!options.tls.empty()) {
    host_->tls.emplace(asio::ssl::context::tls_server);
    NSA_RETURN_IF_ERROR(ConfigureTls(options.tls, &*host_->tls));
  }
  boost::system::error_code error;
  const auto endpoints = tcp::resolver(host_->io).resolve(options.host, absl::StrCat(options.port),
                                                          tcp::resolver::passive, error);
  if (error) return ListenError(error);
  const tcp::endpoint endpoint = endpoints.begin()->endpoint();
  acceptor_.open(endpoint.protocol(), error);
  if (error) return ListenError(error);
  // A restarted server may listen at once; a port that another process listens on is still refused.
  acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (error) return ListenError(error);
  acceptor_.bind(endpoint, error);
  if (error) return ListenError(error);
  acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error) return ListenError(error);
  port_ = acceptor_.local_endpoint(error).port();
  return error ? ListenError(error) : absl::OkStatus();
}

void HttpServer::Impl::Run() {
  asio::post(acceptor_.get_executor(), [this] { Accept(); });
  for (int i = 0; i < host_->options.num_threads; ++i) {
    threads_.emplace_back([this] {
      NameThisThread("nsa-http");
      host_->io.run();
    });
  }
}

void HttpServer::Impl::Accept() {
  if (!acceptor_.is_open()) return;
  auto connection = std::make_shared<HttpConnection>(host_);
  acceptor_.async_accept(connection->socket(), [this, connection](boost::system::error_code error) {
    if (error == asio::error::operation_aborted) return;
    if (!error) {
      OnAccepted(connection);
      return Accept();
    }
    // Mostly: no file descriptor is free. Running requests will give some back.
    NSA_LOG_WARNING << "http: accept: " << error.message();
    retry_timer_.expires_after(kAcceptRetryDelay);
    retry_timer_.async_wait([this](boost::system::error_code cancelled) {
      if (!cancelled) Accept();
    });
  });
}

void HttpServer::Impl::OnAccepted(const std::shared_ptr<HttpConnection>& connection) {
  std::shared_ptr<HttpConnection> oldest_refused;
  {
    const std::lock_guard lock(mutex_);
    if (host_->draining) return;  // Shutdown no longer sees it
    if (static_cast<int64_t>(connections_.size()) < host_->options.max_connections) {
      connections_.insert(connection);
      return connection->Start();
    }
    if (refused_.size() == kMaxRefused) {
      oldest_refused = refused_.front();
      refused_.pop_front();
    }
    refused_.push_back(connection);
  }
  if (oldest_refused != nullptr) oldest_refused->Abort("client_too_slow");
  connection->Refuse();
}

void HttpServer::Impl::OnClosed(const std::shared_ptr<HttpConnection>& connection) {
  const std::lock_guard lock(mutex_);
  if (connections_.erase(connection) == 0) std::erase(refused_, connection);
  closed_.notify_all();
}

std::vector<std::shared_ptr<HttpConnection>> HttpServer::Impl::Connections() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<HttpConnection>> all(connections_.begin(), connections_.end());
  all.insert(all.end(), refused_.begin(), refused_.end());
  return all;
}

int64_t HttpServer::Impl::num_connections() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(connections_.size() + refused_.size());
}

void HttpServer::Impl::StopAccepting() {
  asio::post(acceptor_.get_executor(), [this] {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    retry_timer_.cancel();
  });
}

bool HttpServer::Impl::WaitUntilEmpty(absl::Time deadline) {
  std::unique_lock lock(mutex_);
  const auto is_empty = [this] { return connections_.empty() && refused_.empty(); };
  // Clipped, because far-away times overflow the clock's range.
  const absl::Duration wait = std::clamp(deadline - absl::Now(), absl::ZeroDuration(), kMaxDrain);
  return closed_.wait_for(lock, absl::ToChronoNanoseconds(wait), is_empty);
}

void HttpServer::Impl::Shutdown(absl::Time deadline) {
  if (threads_.empty()) return;
  StopAccepting();
  {
    const std::lock_guard lock(mutex_);
    host_->draining = true;
  }
  for (const auto& connection : Connections()) connection->FinishUp();
  if (!WaitUntilEmpty(deadline)) {
    for (const auto& connection : Connections()) connection->Abort("shutdown");
  }
  // The handlers that are still queued run before run() returns, so nothing is left that would keep
  // a connection alive.
  work_.reset();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpOptions options,
                                                              HttpHandler handler) {
  auto impl = std::make_unique<Impl>(std::move(options), std::move(handler));
  if (absl::Status status = impl->Listen(); !status.ok()) return status;
  impl->Run();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

int HttpServer::port() const { return impl_->port(); }
int64_t HttpServer::num_connections() const { return impl_->num_connections(); }
void HttpServer::StopAccepting() { impl_->StopAccepting(); }
void HttpServer::Shutdown(absl::Time deadline) { impl_->Shutdown(deadline); }

}  // namespace nsa
