#include "server/request_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/utf8.h"

namespace nsa {
namespace {

constexpr char kMessage[] = "request";

// At most about `max_bytes` of a call's input: a text, "[1,2,3]", or "role: content" by lines.
std::string InputText(const GenerateCall& call, size_t max_bytes) {
  if (const auto* text = std::get_if<std::string>(&call.input)) return text->substr(0, max_bytes);
  std::string result;
  if (const auto* tokens = std::get_if<std::vector<int64_t>>(&call.input)) {
    for (const int64_t token : *tokens) {
      if (result.size() >= max_bytes) return result;
      absl::StrAppend(&result, result.empty() ? "[" : ",", token);
    }
    return result + "]";
  }
  for (const ChatMessage& message : std::get<std::vector<ChatMessage>>(call.input)) {
    if (result.size() >= max_bytes) return result;
    absl::StrAppend(&result, result.empty() ? "" : "\n", message.role.substr(0, max_bytes), ": ",
                    message.content.substr(0, max_bytes));
  }
  return result;
}

LogLevel LevelOf(int http_status) {
  if (http_status == 500) return LogLevel::kError;
  return http_status > 500 || http_status == 429 ? LogLevel::kWarning : LogLevel::kInfo;
}

LogLevel LevelOf(absl::StatusCode status) {
  switch (status) {
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return LogLevel::kError;
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return LogLevel::kWarning;
    default:
      return LogLevel::kInfo;
  }
}

}  // namespace

RequestRecord::RequestRecord(std::shared_ptr<const RequestLogOptions> options,
                             std::string_view transport, std::string request_id)
    : options_(std::move(options)),
      transport_(transport),
      request_id_(std::move(request_id)),
      begun_(absl::Now()) {}

RequestRecord::~RequestRecord() {
  const std::lock_guard lock(mutex_);
  if (!IsWritten()) return;
  ended_ = std::min(ended_, absl::Now());
  if (options_->write) {
    options_->write(Level(), Fields());
  } else {
    WriteLog(Level(), kMessage, Fields());
  }
}

void RequestRecord::SetTrace(std::string trace_id) {
  const std::lock_guard lock(mutex_);
  trace_id_ = std::move(trace_id);
}

void RequestRecord::SetRoute(std::string_view route) {
  const std::lock_guard lock(mutex_);
  route_ = route;
}

void RequestRecord::SetHttpStatus(int status) {
  const std::lock_guard lock(mutex_);
  http_status_ = status;
}

void RequestRecord::SetGrpcStatus(absl::StatusCode status) {
  const std::lock_guard lock(mutex_);
  grpc_status_ = status;
}

void RequestRecord::SetError(std::string_view code) {
  const std::lock_guard lock(mutex_);
  if (error_.empty()) error_ = code;
}

void RequestRecord::SetCalls(std::span<const GenerateCall> calls) {
  if (options_ == nullptr || options_->prompt_bytes == 0) return;
  const int64_t max_bytes = options_->prompt_bytes;
  const std::lock_guard lock(mutex_);
  prompt_ = ClipUtf8(InputText(calls.front(), static_cast<size_t>(max_bytes)), max_bytes);
}

void RequestRecord::AddChoices(int64_t num_choices) {
  const std::lock_guard lock(mutex_);
  num_choices_ += num_choices;
}

void RequestRecord::OnEvent(size_t call, const GenerateEvent& event) {
  using Kind = GenerateEvent::Kind;
  const std::lock_guard lock(mutex_);
  if (event.kind == Kind::kDone || event.kind == Kind::kError) return AddUsage(event.usage);
  if (event.kind != Kind::kDelta) return;
  first_token_ = std::min(first_token_, absl::Now());
  any_stopped_ |= event.finish == FinishReason::kStop;
  any_cut_ |= event.finish == FinishReason::kLength;
  const int64_t max_bytes = options_ == nullptr ? 0 : options_->prompt_bytes;
  if (call == 0 && event.choice == 0 && max_bytes > 0 && !output_is_cut_) {
    const std::string all = output_ + event.text;
    output_ = ClipUtf8(all, max_bytes);
    output_is_cut_ = output_.size() < all.size();
  }
}

void RequestRecord::AddUsage(const Usage& usage) {
  if (!usage_.has_value()) {
    usage_ = usage;
    return;
  }
  usage_->prompt_tokens += usage.prompt_tokens;
  usage_->cached_prompt_tokens += usage.cached_prompt_tokens;
  usage_->completion_tokens += usage.completion_tokens;
  usage_->queue = std::max(usage_->queue, usage.queue);
  usage_->prefill = std::max(usage_->prefill, usage.prefill);
  usage_->decode = std::max(usage_->decode, usage.decode);
}

void RequestRecord::End() {
  const std::lock_guard lock(mutex_);
  ended_ = std::min(ended_, absl::Now());
}

LogLevel RequestRecord::Level() const {
  if (http_status_.has_value()) return LevelOf(*http_status_);
  return LevelOf(grpc_status_.value_or(absl::StatusCode::kOk));
}

bool RequestRecord::IsWritten() const {
  if (options_ == nullptr || options_->access == AccessLog::kOff) return false;
  if (!http_status_.has_value() && !grpc_status_.has_value()) return false;  // it never began
  const bool is_probe = std::find(options_->probe_routes.begin(), options_->probe_routes.end(),
                                  route_) != options_->probe_routes.end();
  const bool succeeded = error_.empty() && http_status_.value_or(200) < 400;
  return options_->access == AccessLog::kOn || !is_probe || !succeeded;
}

LogFields RequestRecord::Fields() const {
  LogFields fields;
  fields.Text("request_id", request_id_);
  if (!trace_id_.empty()) fields.Text("trace_id", trace_id_);
  fields.Text("transport", transport_).Text("route", route_);
  if (http_status_.has_value()) fields.Number("status", *http_status_);
  if (grpc_status_.has_value()) {
    fields.Text("grpc_status", absl::StatusCodeToString(*grpc_status_));
  }
  if (!error_.empty()) fields.Text("error", error_);
  if (num_choices_ > 0) AddGeneration(&fields);
  fields.Milliseconds("total_ms", ended_ - begun_);
  if (!prompt_.empty()) fields.Text("prompt", prompt_);
  if (!output_.empty()) fields.Text("output", output_);
  return fields;
}

void RequestRecord::AddGeneration(LogFields* fields) const {
  if (any_stopped_ || any_cut_) {
    fields->Text("finish_reasons", !any_cut_ ? "stop" : !any_stopped_ ? "length" : "stop,length");
  }
  fields->Number("choices", num_choices_);
  if (!usage_.has_value()) return;
  fields->Number("prompt_tokens", usage_->prompt_tokens)
      .Number("cached_tokens", usage_->cached_prompt_tokens)
      .Number("output_tokens", usage_->completion_tokens)
      .Milliseconds("queue_ms", usage_->queue)
      .Milliseconds("prefill_ms", usage_->prefill)
      .Milliseconds("decode_ms", usage_->decode)
      .Milliseconds("first_token_ms", first_token_ - begun_);
}

}  // namespace nsa
