#include "server/http/http_connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nsa {
namespace {

namespace asio = boost::asio;

// Bytes of requests to come that are kept while one is being answered. Beyond, the connection is
// not read, and a peer that leaves is noticed only by writing to it.
constexpr size_t kMaxPipelinedBytes = 64 << 10;
constexpr int kClientClosedRequest = 499;

HttpRequestReader::Limits ReaderLimits(const HttpOptions& options) {
  return {.max_header_bytes = static_cast<size_t>(options.max_header_bytes),
          .max_body_bytes = static_cast<size_t>(options.max_body_bytes)};
}

}  // namespace

HttpConnection::HttpConnection(std::shared_ptr<HttpHost> host)
    : host_(std::move(host)),
      strand_(asio::make_strand(host_->io)),
      socket_(strand_, host_->tls.has_value() ? &*host_->tls : nullptr),
      read_timer_(strand_),
      write_timer_(strand_),
      heartbeat_timer_(strand_),
      reader_(ReaderLimits(host_->options),
              [this](const HttpRequest& head) {
                const auto& needs_body = host_->options.needs_body;
                return !refusing_ && (!needs_body || needs_body(head));
              }),
      body_share_(host_->body_budget) {}

void HttpConnection::RunOnStrand(Task task) {
  if (strand_.running_in_this_thread()) return task(*this);
  PostOnStrand(std::move(task));
}

void HttpConnection::PostOnStrand(Task task) {
  const std::lock_guard lock(post_mutex_);
  if (detached_) return;
  asio::post(strand_, [self = shared_from_this(), task = std::move(task)] { task(*self); });
}

void HttpConnection::RunInExchange(uint64_t exchange, Task task) {
  RunOnStrand([exchange, task = std::move(task)](HttpConnection& c) {
    if (c.IsCurrent(exchange)) task(c);
  });
}

bool HttpConnection::IsCurrent(uint64_t exchange) const {
  return state_ == State::kAnswering && exchange_ == exchange;
}

void HttpConnection::Start() {
  PostOnStrand([](HttpConnection& c) { c.Open([](HttpConnection& o) { o.BeginRequest(); }); });
}

void HttpConnection::Refuse() {
  // The head is read first: a browser's page may read the refusal only if it names its origin.
  refusing_ = true;
  Start();
}

void HttpConnection::FinishUp() {
  PostOnStrand([](HttpConnection& c) {
    // A request that has not arrived whole would be refused. BeginRequest closes those that are
    // being answered.
    if (c.state_ == State::kOpening || c.state_ == State::kReceiving) c.Close();
  });
}

void HttpConnection::Abort(std::string_view cause) {
  PostOnStrand([cause](HttpConnection& c) { c.Disconnect(cause); });
}

void HttpConnection::ConfigureSocket() {
  // Failures are of no consequence: both are tuning.
  ErrorCode ignored;
  socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  const int64_t send_buffer = host_->options.socket_send_buffer_bytes;
  if (send_buffer > 0) {
    socket().set_option(asio::socket_base::send_buffer_size(static_cast<int>(send_buffer)),
                        ignored);
  }
}

void HttpConnection::Open(Task then) {
  ConfigureSocket();
  ArmReadTimer(refusing_ ? host_->options.linger_timeout : host_->options.read_timeout);
  socket_.AsyncHandshake([self = shared_from_this(), then = std::move(then)](ErrorCode error) {
    if (self->state_ == State::kClosed) return;
    if (error) return self->Close();
    then(*self);
  });
}

void HttpConnection::BeginRequest() {
  state_ = State::kReceiving;
  request_begun_ = false;
  if (host_->draining) return CloseGracefully();
  ArmReadTimer(refusing_ ? host_->options.linger_timeout : host_->options.idle_timeout);
  ProcessInput();
  StartRead();
}

void HttpConnection::ProcessInput() {
  if (!request_begun_ && !reader_.empty()) {
    request_begun_ = true;
    if (!refusing_) ArmReadTimer(host_->options.read_timeout);
  }
  const HttpRequestReader::State state = reader_.Parse();
  if (!body_share_.GrowTo(static_cast<int64_t>(reader_.body_bytes()))) {
    return SendError(
        ProtocolError(503, absl::StrCat("the bodies of requests that are being read "
                                        "have reached their limit of ",
                                        host_->options.max_total_body_bytes, " bytes")));
  }
  switch (state) {
    case HttpRequestReader::State::kNeedMore:
      return;
    case HttpRequestReader::State::kContinueExpected:
      pending_ += "HTTP/1.1 100 Continue\r\n\r\n";
      return StartWrite();
    case HttpRequestReader::State::kError:
      return SendError(reader_.error());
    case HttpRequestReader::State::kReady:
      return refusing_ ? AnswerBeyondLimit() : Dispatch();
  }
}

// What is to be answered however busy the server is; of the request that has been read.
bool HttpConnection::IsProbe() {
  const auto& is_probe = host_->options.is_probe;
  return is_probe && is_probe(reader_.head());
}

void HttpConnection::Dispatch() {
  const bool is_probe = IsProbe();
  HttpRequest request = reader_.Take();
  BeginExchange(request);
  keep_alive_ = reader_.keep_alive() && !refusing_;
  http_1_0_ = reader_.http_1_0();
  is_head_ = reader_.is_head();
  request.record = record_;
  if (is_probe) return Handle(std::move(request));
  const auto& lane = host_->options.lane;
  const std::shared_ptr<Turns>& turns = host_->lanes.at(lane ? lane(request) : 0);
  waiter_ = std::make_shared<Waiter>(shared_from_this(), std::move(request));
  turns->Take([waiter = waiter_, exchange = exchange_](const Turns::Turn& turn) {
    const std::shared_ptr<HttpConnection> connection = waiter->TakeConnection();
    if (connection == nullptr) return;
    connection->RunInExchange(exchange, [turn](HttpConnection& c) {
      c.Handle(std::move(std::exchange(c.waiter_, nullptr)->request));
    });
  });
}

void HttpConnection::Handle(HttpRequest request) {
  host_->handler(std::move(request), MakeResponder());
  body_share_.Release();
}

void HttpConnection::StartRead() {
  if (reading_ || peer_closed_ || state_ == State::kClosed) return;
  if (state_ == State::kAnswering && reader_.buffered_bytes() >= kMaxPipelinedBytes) return;
  reading_ = true;
  socket_.AsyncReadSome(asio::buffer(read_chunk_),
                        [self = shared_from_this()](ErrorCode error, size_t num_bytes) {
                          self->OnRead(error, num_bytes);
                        });
}

void HttpConnection::OnRead(ErrorCode error, size_t num_bytes) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  if (error) return OnReadEnd(error);
  // While lingering, what still arrives is of no interest.
  if (state_ != State::kLingering) reader_.Append({read_chunk_.data(), num_bytes});
  if (state_ == State::kReceiving) ProcessInput();
  StartRead();
}

void HttpConnection::OnReadEnd(ErrorCode error) {
  peer_closed_ = true;
  // A peer that has only closed its sending half still gets a response that is already complete.
  if (state_ == State::kAnswering && response_complete_ && error == asio::error::eof) return;
  Disconnect();
}

void HttpConnection::ArmReadTimer(absl::Duration timeout) {
  read_timer_.expires_after(absl::ToChronoNanoseconds(timeout));
  read_timer_.async_wait([self = shared_from_this()](ErrorCode error) {
    // A timer that was armed anew while this handler was queued is not due.
    if (error || self->read_timer_.expiry() > std::chrono::steady_clock::now()) return;
    self->OnReadTimeout();
  });
}

void HttpConnection::OnReadTimeout() {
  if (refusing_ && state_ == State::kReceiving) return SendRefusal();
  if (state_ == State::kOpening || state_ == State::kLingering) return Close();
  if (state_ == State::kReceiving && !request_begun_) return Close();
  if (state_ != State::kReceiving) return;
  SendError(ProtocolError(408, absl::StrCat("the request did not arrive within ",
                                            absl::FormatDuration(host_->options.read_timeout))));
}

void HttpConnection::CloseGracefully() {
  if (peer_closed_) return Close();
  // Closing with unread input would reset the connection, and the peer might lose the response.
  state_ = State::kLingering;
  socket_.ShutdownSend(shared_from_this());
  ArmReadTimer(host_->options.linger_timeout);
  StartRead();
}

void HttpConnection::Disconnect(std::string_view cause) {
  const std::function<void()> callback = std::exchange(on_disconnect_, nullptr);
  if (state_ == State::kAnswering) {
    if (!head_sent_) ReportStatus(kClientClosedRequest);
    record_->SetError(cause);
    record_->End();
  }
  Close();
  if (callback) callback();
}

void HttpConnection::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  on_disconnect_ = nullptr;
  record_.reset();
  kept_.reset();
  if (const auto waiter = std::exchange(waiter_, nullptr)) waiter->GiveUp();
  read_timer_.cancel();
  write_timer_.cancel();
  heartbeat_timer_.cancel();
  socket_.Close();
  body_share_.Release();
  {
    const std::lock_guard lock(post_mutex_);
    detached_ = true;
  }
  host_->on_closed(shared_from_this());
}

}  // namespace nsa
