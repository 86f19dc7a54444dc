#pragma once
// HttpConnection: one TCP connection, one request at a time. Everything runs on its strand. A read
// is always pending, also while a response is being made, so that a peer that leaves is noticed.

#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "base/byte_budget.h"
#include "server/http/http_request_reader.h"
#include "server/http/http_server.h"
#include "server/http/http_socket.h"
#include "server/http/http_wire.h"
#include "server/http/turns.h"
#include "server/request_log.h"

namespace nsa {

class HttpConnection;

// What the connections of one server share. Connections keep it alive, because a responder, and
// with it the connection, may outlive the server.
struct HttpHost {
  explicit HttpHost(HttpOptions given)
      : options(std::move(given)),
        body_budget(std::make_shared<ByteBudget>(options.max_total_body_bytes)),
        lanes(MakeLanes(options.lane_turns)) {}

  static std::vector<std::shared_ptr<Turns>> MakeLanes(const std::vector<int>& turns) {
    std::vector<std::shared_ptr<Turns>> lanes;
    for (const int max_turns : turns) lanes.push_back(std::make_shared<Turns>(max_turns));
    return lanes;
  }

  boost::asio::io_context io;
  const HttpOptions options;
  const std::shared_ptr<ByteBudget>
      body_budget;  // of requests that are being read or turned into calls
  const std::vector<std::shared_ptr<Turns>> lanes;  // of handlers
  std::optional<boost::asio::ssl::context> tls;
  HttpHandler handler;
  std::atomic<bool> draining{false};
  // On the connection's strand, once, when it has closed.
  std::function<void(const std::shared_ptr<HttpConnection>&)> on_closed;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  explicit HttpConnection(std::shared_ptr<HttpHost> host);

  // For the acceptor, before Start.
  boost::asio::ip::tcp::socket& socket() { return socket_.tcp(); }

  // From any thread, after the socket is connected: serve; answer the first request, 503 unless it
  // is a probe, and close; close as soon as no request is in progress; close now.
  void Start();
  void Refuse();
  void FinishUp();
  void Abort(std::string_view cause);  // for the log

 private:
  class Responder;

  // A request in its lane. Nothing of it is left there once the connection has given up.
  struct Waiter {
    Waiter(std::shared_ptr<HttpConnection> its_connection, HttpRequest its_request)
        : request(std::move(its_request)), connection(std::move(its_connection)) {}

    // The first time; then null. From any thread.
    std::shared_ptr<HttpConnection> TakeConnection() {
      const std::lock_guard lock(mutex);
      return std::exchange(connection, nullptr);
    }
    void GiveUp() {
      TakeConnection();
      request = {};
    }

    HttpRequest request;  // the connection's strand has it
    std::mutex mutex;
    std::shared_ptr<HttpConnection> connection ABSL_GUARDED_BY(mutex);
  };

  enum class State : uint8_t { kOpening, kReceiving, kAnswering, kLingering, kClosed };
  using Task = std::function<void(HttpConnection&)>;
  using ErrorCode = boost::system::error_code;

  // Runs the task on the strand: at once if this is the strand, else later. Dropped once closed.
  void RunOnStrand(Task task);
  void PostOnStrand(Task task);  // always later
  // The same, and skipped unless the exchange with this number is still being answered.
  void RunInExchange(uint64_t exchange, Task task);
  bool IsCurrent(uint64_t exchange) const;

  // Reading.
  void ConfigureSocket();
  void Open(Task then);  // configures the socket, shakes hands
  void BeginRequest();
  void ProcessInput();
  void StartRead();
  void OnRead(ErrorCode error, size_t num_bytes);
  void OnReadEnd(ErrorCode error);
  void ArmReadTimer(absl::Duration timeout);
  void OnReadTimeout();
  bool IsProbe();
  void Dispatch();
  void Handle(HttpRequest request);

  // Answering (http_connection_answer.cc).
  std::shared_ptr<HttpResponder> MakeResponder();
  void BeginExchange(const HttpRequest& request);
  void ReportStatus(int status);
  void SendHead(const HttpResponse& response, BodyFraming framing);
  void SendWhole(const HttpResponse& response);
  void SendError(const HttpError& error);
  void AnswerBeyondLimit();
  void SendRefusal();
  void BeginStream(const HttpResponse& head, const std::string& heartbeat);
  void WriteToStream(const std::string& data);
  void EndStream();
  void OnResponderDropped();
  void ArmHeartbeat();
  void FinishExchange();

  // Writing.
  void StartWrite();
  void ArmWriteTimer();
  void WriteSome();
  void OnWrite(ErrorCode error, size_t num_bytes);

  // Ending.
  void CloseGracefully();
  void Disconnect(std::string_view cause = "client_left");  // for the log
  void Close();

  const std::shared_ptr<HttpHost> host_;  // first: owns the io_context that the rest refers to
  boost::asio::strand<boost::asio::io_context::executor_type> strand_;
  HttpSocket socket_;
  boost::asio::steady_timer read_timer_, write_timer_, heartbeat_timer_;
  State state_ = State::kOpening;

  HttpRequestReader reader_;
  ByteShare body_share_;  // covers the body in reader_, and in the handler
  std::array<char, 16384> read_chunk_;
  bool refusing_ = false;  // as Refuse says
  bool reading_ = false;
  bool request_begun_ = false;  // its first byte has been seen
  bool peer_closed_ = false;    // its sending half

  // The exchange in progress.
  uint64_t exchange_ = 0;  // its number
  std::string request_id_, route_;
  std::shared_ptr<RequestRecord> record_;
  std::shared_ptr<Waiter> waiter_;  // while the request waits for its turn
  std::shared_ptr<void> kept_;      // as HttpResponse::kept
  bool keep_alive_ = false, http_1_0_ = false, is_head_ = false;
  bool head_sent_ = false, response_complete_ = false;  // as handed to the write buffer
  BodyFraming framing_ = BodyFraming::kLength;
  std::function<void()> on_disconnect_;
  std::string heartbeat_;
  absl::Time last_chunk_;

  std::string pending_, sending_;  // sending_ is with the socket from sent_bytes_ on
  size_t sent_bytes_ = 0;
  size_t timed_bytes_ = 0;  // sent when the write timer was set
  bool writing_ = false;
  int64_t BufferLimit(int64_t chunk_bytes);
  std::atomic<int64_t> largest_chunk_bytes_{0};  // of its streams
  std::atomic<int64_t> posted_bytes_{0};  // handed to Write from other threads, not yet in pending_

  std::mutex post_mutex_;  // not absl::Mutex, which ThreadSanitizer cannot see into
  bool detached_ = false;  // guarded by post_mutex_; closed: nothing may be posted any more
};

}  // namespace nsa
