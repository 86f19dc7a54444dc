#pragma once
// The access log: one line for each request that has ended, of both transports.

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "server/generation_service.h"

namespace nsa {

enum class AccessLog : uint8_t { kOff, kNoProbes, kOn };

struct RequestLogOptions {
  AccessLog access = AccessLog::kOff;
  std::vector<std::string> probe_routes;  // kNoProbes leaves them out where they succeed
  // Bytes that a line may show of a request's prompt, and as many of its answer; 0: neither.
  int64_t prompt_bytes = 0;
  std::function<void(LogLevel, const LogFields&)> write;  // empty: WriteLog
};

// One request's line: filled in on the request's way, written when the last reference goes, which
// is when nothing works for the request any more. Thread-safe.
class RequestRecord {
 public:
  // `options` null: no line is written. `transport`: "http", "grpc".
  RequestRecord(std::shared_ptr<const RequestLogOptions> options, std::string_view transport,
                std::string request_id);
  ~RequestRecord();
  RequestRecord(const RequestRecord&) = delete;
  RequestRecord& operator=(const RequestRecord&) = delete;

  const std::string& request_id() const { return request_id_; }
  absl::Time begun() const { return begun_; }  // when the request was there

  void SetTrace(std::string trace_id);
  // One of a table, never a client's text: the line shows it, and it tells probes.
  void SetRoute(std::string_view route);
  // The answer; the last one counts.
  void SetHttpStatus(int status);
  void SetGrpcStatus(absl::StatusCode status);
  // Why it ended in another way than was asked for. The first one counts, an empty one never.
  void SetError(std::string_view code);

  // The calls of a generation request, as the client gave them.
  void SetCalls(std::span<const GenerateCall> calls);
  // One of them runs.
  void AddChoices(int64_t num_choices);
  // What the service tells about call number `call`.
  void OnEvent(size_t call, const GenerateEvent& event);

  // The response is out, or the client has gone.
  void End();

 private:
  // The longest phases of a request's calls, and the sum of their tokens.
  void AddUsage(const Usage& usage) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  LogLevel Level() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsWritten() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  LogFields Fields() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddGeneration(LogFields* fields) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<const RequestLogOptions> options_;
  const std::string transport_, request_id_;
  const absl::Time begun_;

  std::mutex mutex_;
  std::string trace_id_ ABSL_GUARDED_BY(mutex_);
  std::string route_ ABSL_GUARDED_BY(mutex_) = "none";
  std::optional<int> http_status_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::StatusCode> grpc_status_ ABSL_GUARDED_BY(mutex_);
  std::string error_ ABSL_GUARDED_BY(mutex_);
  int64_t num_choices_ ABSL_GUARDED_BY(mutex_) = 0;
  bool any_stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool any_cut_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<Usage> usage_ ABSL_GUARDED_BY(mutex_);
  absl::Time first_token_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Time ended_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  // Of the first call and its first choice, where asked for.
  std::string prompt_ ABSL_GUARDED_BY(mutex_), output_ ABSL_GUARDED_BY(mutex_);
  bool output_is_cut_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace nsa
