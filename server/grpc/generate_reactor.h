#pragma once
// GenerateReactor: one Generate call of gRPC. Takes the service's events on the engine's thread,
// never blocks there, and writes them one after another.

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "server/generation_service.h"
#include "server/request_log.h"

namespace nsa {

class GenerateReactor : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                        public GenerateObserver,
                        public std::enable_shared_from_this<GenerateReactor> {
 public:
  using Ended = std::function<void(const grpc::Status&)>;

  // gRPC owns the reactor until OnDone. A message that finds `max_queued_bytes` waiting for a slow
  // reader ends the call with RESOURCE_EXHAUSTED. on_end gets the final status.
  struct Options {
    int64_t max_queued_bytes = 0;
    Ended on_end;
    std::shared_ptr<RequestRecord> record;
  };
  static std::shared_ptr<GenerateReactor> Make(GenerationService* service, Options options);

  // Once, from any thread: starts the call, or ends it with the status that stands for it. Nothing,
  // if the client has left.
  void Begin(const absl::StatusOr<GenerateCall>& call);
  bool is_ending();

  void OnEvent(GenerateEvent event) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GenerateReactor(GenerationService* service, Options options)
      : service_(service), options_(std::move(options)) {}

  // Once the call's constraint is compiled.
  void Run(absl::StatusOr<std::vector<PreparedCall>> completed);
  // Ends the call with this status behind what is queued.
  void EndWith(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Starts the next write, or the end if nothing is left to write.
  void Proceed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ClearQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Abandon() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  GenerationService* const service_;
  const Options options_;
  std::shared_ptr<GenerateReactor> self_;  // gRPC's share

  std::mutex mutex_;
  std::unique_ptr<GenerateHandle> handle_ ABSL_GUARDED_BY(mutex_);  // null until Begin has it
  std::deque<grpc::ByteBuffer> queue_ ABSL_GUARDED_BY(mutex_);
  int64_t num_queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  grpc::ByteBuffer in_flight_ ABSL_GUARDED_BY(mutex_);  // gRPC reads it until OnWriteDone
  grpc::Status end_status_ ABSL_GUARDED_BY(mutex_);
  ConstraintQueue::Ticket ticket_ ABSL_GUARDED_BY(mutex_) = ConstraintQueue::kNoTicket;
  bool is_preparing_ ABSL_GUARDED_BY(mutex_) = true;  // the service has not been asked to start
  bool is_writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_ending_ ABSL_GUARDED_BY(mutex_) = false;     // no more events are taken
  bool is_abandoned_ ABSL_GUARDED_BY(mutex_) = false;  // the client is gone
  bool is_finished_ ABSL_GUARDED_BY(mutex_) = false;   // Finish was called
};

}  // namespace nsa
