#pragma once
// UnaryReactor: one gRPC call with a message each way, answered on another thread, or ended at once
// if the client leaves before.

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/grpc/messages.h"

namespace nsa {

class UnaryReactor final : public grpc::ServerUnaryReactor {
 public:
  using Ended = std::function<void(const absl::Status&)>;

  // gRPC owns it until OnDone; `response` is gRPC's. on_end gets the final status, once.
  static std::shared_ptr<UnaryReactor> Make(grpc::ByteBuffer* response, Ended on_end) {
    std::shared_ptr<UnaryReactor> reactor(new UnaryReactor(response, std::move(on_end)));
    reactor->self_ = reactor;
    return reactor;
  }

  // From any thread; only the first time counts.
  void End(absl::StatusOr<grpc::ByteBuffer> answer) {
    const std::lock_guard lock(mutex_);
    if (std::exchange(is_ended_, true)) return;
    if (answer.ok()) *response_ = *std::move(answer);
    on_end_(answer.status());
    Finish(ToGrpcStatus(answer.status()));
  }
  bool is_ended() {
    const std::lock_guard lock(mutex_);
    return is_ended_;
  }

  void OnCancel() override { End(absl::CancelledError("the request was cancelled")); }
  void OnDone() override { self_.reset(); }

 private:
  UnaryReactor(grpc::ByteBuffer* response, Ended on_end)
      : response_(response), on_end_(std::move(on_end)) {}

  grpc::ByteBuffer* const response_;  // not there any more once the call has ended
  const Ended on_end_;
  std::shared_ptr<UnaryReactor> self_;  // gRPC's share
  std::mutex mutex_;
  bool is_ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace nsa
