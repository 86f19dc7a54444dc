#include "bench/serving/http_caller.h"

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bench/serving/sse_reader.h"
#include "nlohmann/json.hpp"

namespace nsa::bench {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using ErrorCode = boost::system::error_code;

constexpr int kStampDigits = 6;  // of a commit time, hexadecimal, then a space (overhead_server)
constexpr uint32_t kStampMask = (1U << (4 * kStampDigits)) - 1;

// The latency from each commit time in `text` to `now`, in ms.
void TakeCommitTimes(absl::string_view text, Clock::time_point now, std::vector<float>* added_ms) {
  const auto now_us = static_cast<uint32_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count());
  for (; text.size() > kStampDigits; text.remove_prefix(kStampDigits + 1)) {
    uint32_t committed_us = 0;
    if (!absl::SimpleHexAtoi(text.substr(0, kStampDigits), &committed_us)) return;
    added_ms->push_back(static_cast<float>((now_us - committed_us) & kStampMask) / 1000);
  }
}

Outcome OutcomeOf(unsigned status) {
  if (status == 429 || status == 503) return Outcome::kRefused;
  return status >= 500 ? Outcome::kServerError : Outcome::kClientError;
}

}  // namespace

class HttpCaller::Call : public std::enable_shared_from_this<Call> {
 public:
  Call(HttpCaller* caller, const PlannedCall& planned, Clock::time_point arrival, Done done)
      : caller_(caller), planned_(planned), done_(std::move(done)), timer_(*caller->loop_) {
    record_.arrival = arrival;
    record_.prompt_tokens = planned.prompt_tokens;
  }

  void Run() {
    record_.sent = Clock::now();
    request_ = caller_->MakeRequest(planned_);
    timer_.expires_after(absl::ToChronoNanoseconds(caller_->options_.timeout));
    timer_.async_wait([self = shared_from_this()](ErrorCode error) {
      if (!error) self->End(Outcome::kTimeout);
    });
    is_reused_ = !caller_->idle_.empty();
    if (!is_reused_) return Connect();
    socket_ = std::move(caller_->idle_.back());
    caller_->idle_.pop_back();
    Send();
  }

 private:
  void Connect() {
    socket_ = std::make_unique<Socket>(*caller_->loop_);
    socket_->async_connect(caller_->endpoint_, [self = shared_from_this()](ErrorCode error) {
      if (self->ended_) return;
      if (error) return self->End(Outcome::kConnection);
      ErrorCode ignored;
      self->socket_->set_option(asio::ip::tcp::no_delay(true), ignored);
      self->Send();
    });
  }

  void Send() {
    parser_.emplace();
    parser_->eager(true);
    parser_->body_limit(boost::none);
    asio::async_write(*socket_, asio::buffer(request_),
                      [self = shared_from_this()](ErrorCode error, size_t /*num_bytes*/) {
                        if (self->ended_) return;
                        if (error) return self->Retry();
                        if (self->planned_.cancel_after == 0) return self->End(Outcome::kCancelled);
                        self->Read();
                      });
  }

  // A connection that was kept may have been closed by the server meanwhile.
  void Retry() {
    if (!is_reused_ || parser_->got_some()) return End(Outcome::kConnection);
    is_reused_ = false;
    Connect();
  }

  void Read() {
    socket_->async_read_some(asio::buffer(chunk_),
                             [self = shared_from_this()](ErrorCode error, size_t num_bytes) {
                               if (!self->ended_) self->OnRead(error, num_bytes);
                             });
  }

  void OnRead(ErrorCode error, size_t num_bytes) {
    const Clock::time_point now = Clock::now();
    if (error == asio::error::eof && parser_->got_some() && parser_->is_header_done()) {
      parser_->put_eof(error);
      if (!error) return Complete();
    }
    if (error) return Retry();
    input_.commit(asio::buffer_copy(input_.prepare(num_bytes), asio::buffer(chunk_, num_bytes)));
    while (input_.size() > 0 && !parser_->is_done()) {
      input_.consume(parser_->put(input_.data(), error));
      if (error == http::error::need_more) break;
      if (error) return End(Outcome::kConnection);
    }
    TakeBody(now);
    if (ended_) return;
    return parser_->is_done() ? Complete() : Read();
  }

  void TakeBody(Clock::time_point now) {
    if (!parser_->is_header_done() || parser_->get().result_int() != 200) return;
    const std::string body = std::exchange(parser_->get().body(), {});
    events_.Push(body, [&](std::string_view data) { TakeEvent(ParseStreamEvent(data), now); });
  }

  void TakeEvent(const StreamEvent& event, Clock::time_point now) {
    if (ended_) return;
    is_whole_ |= event.is_end;
    has_failed_ |= event.is_error;
    if (event.completion_tokens.has_value()) num_tokens_ = *event.completion_tokens;
    if (event.text.empty()) return;
    record_.TakeToken(now);
    if (caller_->options_.commit_times) TakeCommitTimes(event.text, now, &record_.added_ms);
    if (record_.num_events == planned_.cancel_after) End(Outcome::kCancelled);
  }

  void Complete() {
    const unsigned status = parser_->get().result_int();
    if (status != 200) return End(OutcomeOf(status));
    if (has_failed_) return End(Outcome::kServerError);
    End(is_whole_ ? Outcome::kOk : Outcome::kConnection);
  }

  void End(Outcome outcome) {
    ended_ = true;
    timer_.cancel();
    record_.end = Clock::now();
    record_.outcome = outcome;
    if (parser_.has_value() && parser_->is_header_done()) {
      record_.status = absl::StrCat(parser_->get().result_int());
    }
    record_.num_tokens = num_tokens_.value_or(record_.num_events);
    const bool is_over = parser_.has_value() && parser_->is_done() && parser_->keep_alive();
    if (is_over && outcome != Outcome::kCancelled) {
      caller_->idle_.push_back(std::move(socket_));
    } else if (socket_ != nullptr) {
      ErrorCode ignored;
      socket_->close(ignored);
    }
    asio::post(*caller_->loop_, [done = std::move(done_), record = std::move(record_)]() mutable {
      done(std::move(record));
    });
  }

  HttpCaller* const caller_;
  const PlannedCall planned_;
  Done done_;
  CallRecord record_;
  std::string request_;
  std::unique_ptr<Socket> socket_;
  asio::steady_timer timer_;
  std::optional<http::response_parser<http::string_body>> parser_;
  boost::beast::flat_buffer input_;
  std::array<char, 16384> chunk_;
  SseReader events_;
  std::optional<int64_t> num_tokens_;
  bool is_reused_ = false, is_whole_ = false, has_failed_ = false, ended_ = false;
};

absl::Status HttpCaller::Resolve() {
  ErrorCode error;
  const auto found = asio::ip::tcp::resolver(*loop_).resolve(options_.host, options_.port, error);
  if (error) return absl::UnavailableError(absl::StrCat(options_.host, ": ", error.message()));
  endpoint_ = found.begin()->endpoint();
  return absl::OkStatus();
}

void HttpCaller::Start(const PlannedCall& call, Clock::time_point arrival, Done done) {
  std::make_shared<Call>(this, call, arrival, std::move(done))->Run();
}

std::string HttpCaller::MakeRequest(const PlannedCall& call) const {
  nlohmann::json body = {{"max_tokens", call.output_tokens},
                         {"temperature", 0},
                         {"stream", true},
                         {"stream_options", {{"include_usage", true}}}};
  if (!options_.model.empty()) body["model"] = options_.model;
  if (options_.ignore_eos) body["ignore_eos"] = true;
  if (options_.chat) {
    body["messages"] = {{{"role", "user"}, {"content", PromptWords(call)}}};
  } else if (options_.words) {
    body["prompt"] = PromptWords(call);
  } else {
    body["prompt"] = PromptIds(call);
  }
  const std::string text = body.dump();
  std::string request =
      absl::StrCat("POST /v1/", options_.chat ? "chat/" : "",
                   "completions HTTP/1.1\r\nHost: ", options_.host, ":", options_.port,
                   "\r\nContent-Type: application/json\r\nContent-Length: ", text.size(), "\r\n");
  if (!options_.api_key.empty()) {
    absl::StrAppend(&request, "Authorization: Bearer ", options_.api_key, "\r\n");
  }
  return absl::StrCat(request, "\r\n", text);
}

}  // namespace nsa::bench
