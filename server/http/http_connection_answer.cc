// The answering half of HttpConnection: the responder, the exchange in progress, the write buffer.

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <chrono>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "server/http/errors.h"
#include "server/http/http_connection.h"
#include "server/request_id.h"

namespace nsa {
namespace {

constexpr char kClientTooSlow[] = "client_too_slow";

// A reader has write_timeout for each of these, or for what is left.
constexpr size_t kTimedWriteBytes = size_t{1} << 20;

// Empty where there is not one valid traceparent.
std::string TraceIdOf(const HttpHeaders& headers) {
  const auto is_traceparent = [](const auto& header) {
    return absl::EqualsIgnoreCase(header.first, "traceparent");
  };
  const auto first = std::find_if(headers.begin(), headers.end(), is_traceparent);
  if (std::count_if(headers.begin(), headers.end(), is_traceparent) != 1) return "";
  return nsa::TraceIdOf(first->second);
}

}  // namespace

// The handle that an endpoint holds.
class HttpConnection::Responder final : public HttpResponder {
 public:
  Responder(std::shared_ptr<HttpConnection> connection, uint64_t exchange)
      : connection_(std::move(connection)), exchange_(exchange) {}
  ~Responder() override {
    connection_->RunInExchange(exchange_, [](HttpConnection& c) { c.OnResponderDropped(); });
  }

  void SetRoute(const std::string& route) override {
    connection_->RunInExchange(exchange_, [route](HttpConnection& c) {
      if (c.head_sent_) return;
      c.route_ = route;
      c.record_->SetRoute(route);
    });
  }

  void Send(HttpResponse response) override {
    connection_->RunInExchange(exchange_, [response = std::move(response)](HttpConnection& c) {
      if (!c.head_sent_) c.SendWhole(response);
    });
  }

  void StartStream(HttpResponse head, std::string heartbeat) override {
    connection_->RunInExchange(
        exchange_, [head = std::move(head), heartbeat = std::move(heartbeat)](HttpConnection& c) {
          if (!c.head_sent_) c.BeginStream(head, heartbeat);
        });
  }

  void Write(std::string chunk) override {
    const auto num_bytes = static_cast<int64_t>(chunk.size());
    const int64_t posted = connection_->posted_bytes_.fetch_add(num_bytes) + num_bytes;
    const bool too_much = posted > connection_->BufferLimit(num_bytes);
    if (too_much) chunk.clear();
    connection_->RunOnStrand(
        [exchange = exchange_, too_much, num_bytes, chunk = std::move(chunk)](HttpConnection& c) {
          c.posted_bytes_ -= num_bytes;
          if (!c.IsCurrent(exchange)) return;
          if (too_much) return c.Disconnect(kClientTooSlow);
          c.WriteToStream(chunk);
        });
  }

  void Close() override {
    connection_->RunInExchange(exchange_, [](HttpConnection& c) { c.EndStream(); });
  }

  void OnDisconnect(std::function<void()> callback) override {
    connection_->RunInExchange(exchange_, [callback = std::move(callback)](HttpConnection& c) {
      c.on_disconnect_ = callback;
    });
  }

  void Post(std::function<void()> function) override {
    connection_->PostOnStrand(
        [exchange = exchange_, function = std::move(function)](HttpConnection& c) {
          if (c.IsCurrent(exchange)) function();
        });
  }

 private:
  const std::shared_ptr<HttpConnection> connection_;
  const uint64_t exchange_;
};

std::shared_ptr<HttpResponder> HttpConnection::MakeResponder() {
  return std::make_shared<Responder>(shared_from_this(), exchange_);
}

void HttpConnection::BeginExchange(const HttpRequest& request) {
  state_ = State::kAnswering;
  read_timer_.cancel();
  ++exchange_;
  request_id_ = request.request_id;
  record_ = std::make_shared<RequestRecord>(host_->options.log, "http", request_id_);
  record_->SetTrace(TraceIdOf(request.headers));
  route_.clear();
  keep_alive_ = http_1_0_ = is_head_ = false;
  head_sent_ = response_complete_ = false;
}

void HttpConnection::SendHead(const HttpResponse& response, BodyFraming framing) {
  head_sent_ = true;
  framing_ = framing;
  if (host_->draining || framing == BodyFraming::kToEof) keep_alive_ = false;
  pending_ += FormatHead(response, {.framing = framing,
                                    .keep_alive = keep_alive_,
                                    .http_1_0 = http_1_0_,
                                    .request_id = request_id_});
  ReportStatus(response.status);
  record_->SetError(response.error_code);
}

void HttpConnection::ReportStatus(int status) {
  record_->SetHttpStatus(status);
  if (host_->options.on_response) host_->options.on_response(route_, status);
}

void HttpConnection::SendWhole(const HttpResponse& response) {
  SendHead(response, BodyFraming::kLength);
  if (!is_head_) pending_ += response.body;
  kept_ = response.kept;
  response_complete_ = true;
  StartWrite();
}

// Of the connection itself: nothing more is read from it.
void HttpConnection::SendError(const HttpError& error) {
  HttpResponse response = ErrorResponse(error);
  if (host_->options.on_error) host_->options.on_error(reader_.head(), &response);
  reader_.request_id();  // there is one from now on
  BeginExchange(reader_.head());
  is_head_ = reader_.head().method == "HEAD";
  reader_.Abandon();
  body_share_.Release();
  SendWhole(response);
}

void HttpConnection::AnswerBeyondLimit() {
  if (IsProbe()) return Dispatch();
  SendRefusal();
}

void HttpConnection::SendRefusal() {
  SendError(ProtocolError(503, absl::StrCat("the server has its limit of ",
                                            host_->options.max_connections, " connections open")));
}

void HttpConnection::BeginStream(const HttpResponse& head, const std::string& heartbeat) {
  SendHead(head, http_1_0_ ? BodyFraming::kToEof : BodyFraming::kChunked);
  heartbeat_ = heartbeat;
  last_chunk_ = absl::Now();
  if (!heartbeat_.empty()) ArmHeartbeat();
  StartWrite();
}

// A chunk may be larger than the bound: that its reader has not taken it yet says nothing of him.
int64_t HttpConnection::BufferLimit(int64_t chunk_bytes) {
  int64_t largest = largest_chunk_bytes_.load();
  while (largest < chunk_bytes &&
         !largest_chunk_bytes_.compare_exchange_weak(largest, chunk_bytes)) {
  }
  return host_->options.max_buffered_bytes + std::max(largest, chunk_bytes);
}

void HttpConnection::WriteToStream(const std::string& data) {
  if (!head_sent_ || response_complete_ || data.empty()) return;
  const auto unsent_bytes = static_cast<int64_t>(pending_.size() + sending_.size() - sent_bytes_);
  const auto num_bytes = static_cast<int64_t>(data.size());
  if (unsent_bytes + num_bytes > BufferLimit(num_bytes)) {
    WriteLog(LogLevel::kWarning, "the client reads too slowly, its stream is closed",
             LogFields().Text("request_id", request_id_).Number("unsent_bytes", unsent_bytes));
    return Disconnect(kClientTooSlow);
  }
  last_chunk_ = absl::Now();
  pending_ += framing_ == BodyFraming::kChunked ? FormatChunk(data) : data;
  StartWrite();
}

void HttpConnection::EndStream() {
  if (!head_sent_ || response_complete_) return;
  response_complete_ = true;
  heartbeat_timer_.cancel();
  if (framing_ == BodyFraming::kChunked) pending_ += kLastChunk;
  StartWrite();
  if (!writing_) FinishExchange();
}

void HttpConnection::OnResponderDropped() {
  if (response_complete_) return;
  if (head_sent_) return Disconnect("internal_error");
  keep_alive_ = false;
  SendWhole(ErrorResponse(ProtocolError(500, "")));
}

void HttpConnection::ArmHeartbeat() {
  const absl::Duration wait = last_chunk_ + host_->options.heartbeat_interval - absl::Now();
  heartbeat_timer_.expires_after(absl::ToChronoNanoseconds(wait));
  heartbeat_timer_.async_wait([self = shared_from_this(), exchange = exchange_](ErrorCode error) {
    if (error || !self->IsCurrent(exchange) || self->response_complete_) return;
    if (absl::Now() >= self->last_chunk_ + self->host_->options.heartbeat_interval) {
      self->WriteToStream(self->heartbeat_);
    }
    if (self->state_ == State::kAnswering) self->ArmHeartbeat();
  });
}

void HttpConnection::FinishExchange() {
  on_disconnect_ = nullptr;
  record_->End();
  record_.reset();
  kept_.reset();
  if (!keep_alive_ || peer_closed_) return CloseGracefully();
  BeginRequest();
}

void HttpConnection::StartWrite() {
  if (writing_ || pending_.empty()) return;
  writing_ = true;
  sending_.clear();
  sending_.swap(pending_);
  sent_bytes_ = 0;
  ArmWriteTimer();
  WriteSome();
}

void HttpConnection::ArmWriteTimer() {
  timed_bytes_ = sent_bytes_;
  write_timer_.expires_after(absl::ToChronoNanoseconds(host_->options.write_timeout));
  write_timer_.async_wait([self = shared_from_this()](ErrorCode error) {
    if (error || self->write_timer_.expiry() > std::chrono::steady_clock::now()) return;
    self->Disconnect(kClientTooSlow);
  });
}

void HttpConnection::WriteSome() {
  if (sent_bytes_ - timed_bytes_ >= kTimedWriteBytes) ArmWriteTimer();
  socket_.AsyncWriteSome(
      boost::asio::buffer(sending_.data() + sent_bytes_, sending_.size() - sent_bytes_),
      [self = shared_from_this()](ErrorCode error, size_t num_bytes) {
        self->OnWrite(error, num_bytes);
      });
}

void HttpConnection::OnWrite(ErrorCode error, size_t num_bytes) {
  if (state_ == State::kClosed) return;
  if (error) return Disconnect();
  sent_bytes_ += num_bytes;
  if (sent_bytes_ < sending_.size()) return WriteSome();
  writing_ = false;
  write_timer_.cancel();
  sending_.clear();
  sent_bytes_ = 0;
  if (!pending_.empty()) return StartWrite();
  if (state_ == State::kAnswering && response_complete_) FinishExchange();
}

}  // namespace nsa
