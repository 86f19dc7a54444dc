#pragma once
// Engine: continuous batching over an executor. Thread-safe from outside; one engine thread owns
// all mutable state.

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/admission.h"
#include "engine/executor.h"
#include "engine/request.h"
#include "engine/stats.h"

namespace nsa {

struct EngineOptions {
  AdmissionLimits admission;     // beyond them requests are refused
  int64_t max_model_tokens = 0;  // longest prompt + generation; 0 = the pool's size
  // Called once, on the engine's thread, when the executor is lost: every request has ended with
  // kError, and new ones are refused as UNAVAILABLE. The process should end. May be empty.
  std::function<void()> on_lost;
};

class Engine {
 public:
  // Starts the engine thread. The executor must outlive the engine.
  Engine(EngineOptions options, Executor* executor);
  // Stops the thread; requests still running end with kCancelled.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Queues all of `requests` or none. The sink gets their events until each has finished.
  // RESOURCE_EXHAUSTED: the queue is full. INVALID_ARGUMENT: an empty prompt, a token id outside
  // the vocabulary, max_tokens below 1, or prompt + max_tokens over the model's or the cache's
  // capacity (both numbers in the message), or more requests than the queue holds.
  // UNAVAILABLE: draining, or the executor is lost. The id of a live request is a
  // programmer error.
  absl::Status Submit(std::vector<Request> requests, std::shared_ptr<TokenSink> sink);

  // A place in the queue for requests that are still being prepared, so that the work is not done
  // in vain. They count as waiting. What has not been submitted goes back at its end. Thread-safe;
  // must not outlive the engine.
  class Reservation;
  // What Submit would say of requests with so many prompt tokens. A refusal is counted.
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(AdmissionLoad wanted);
  // The same as above in a place that was reserved for as many requests and tokens, and is used up
  // thereby. Drain lets it in before its deadline; then, or without a device, UNAVAILABLE.
  absl::Status Submit(std::vector<Request> requests, std::shared_ptr<TokenSink> sink,
                      Reservation& place);

  // Ends the request with `reason`: kCancelled, or kStop when its owner has found the end (a stop
  // string) itself. Its pages are free within one step. An unknown or finished id
  // is ignored.
  void Cancel(RequestId id, FinishReason reason = FinishReason::kCancelled);

  // Refuses new requests from now on and waits until none is left or the deadline passed, then
  // cancels the rest. Returns when every sink has its last event and every reservation has ended.
  // A second call may bring the deadline forward. Not to be called by a sink.
  void Drain(absl::Time deadline);

  // A snapshot: as of the last step, with the requests that arrived since among the waiting ones.
  // It already counts what a sink has been told.
  EngineStats Stats() const;

  // Longest prompt + generation of one request, in tokens.
  int64_t max_request_tokens() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

class Engine::Reservation {
 public:
  ~Reservation();
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

  // How many tokens the prompts have, now that it is known. RESOURCE_EXHAUSTED, and counted: too
  // many, beside those of others that wait.
  absl::Status SetTokens(int64_t num_tokens);
  // Takes a part of this for requests that are submitted apart.
  std::unique_ptr<Reservation> Split(AdmissionLoad part);

 private:
  friend class Engine::Impl;
  Reservation(Impl* engine, AdmissionLoad load) : engine_(engine), load_(load) {}

  Impl* const engine_;
  AdmissionLoad load_;  // guarded by the engine's mutex
};

}  // namespace nsa
