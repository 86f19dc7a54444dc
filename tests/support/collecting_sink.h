#pragma once
// CollectingSink: keeps every event of the requests submitted with it, and lets a test wait for
// their ends.

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "engine/request.h"

namespace nsa {

class CollectingSink : public TokenSink {
 public:
  void OnToken(const TokenEvent& event) override {
    const std::lock_guard lock(mutex_);
    events_[event.id].push_back(event);
    if (event.finish != FinishReason::kNone) ++num_finished_;
    changed_.notify_all();
  }

  // Blocks until this many ends were reported.
  void WaitForEnds(int64_t num_finished) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return num_finished_ >= num_finished; });
  }

  // Blocks until the request has had this many events.
  void WaitForEvents(RequestId id, size_t num_events) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return events_[id].size() >= num_events; });
  }

  std::vector<TokenEvent> EventsOf(RequestId id) const {
    const std::lock_guard lock(mutex_);
    const auto entry = events_.find(id);
    return entry == events_.end() ? std::vector<TokenEvent>() : entry->second;
  }

  std::vector<int32_t> TokensOf(RequestId id) const {
    std::vector<int32_t> tokens;
    for (const TokenEvent& event : EventsOf(id)) {
      if (event.has_token) tokens.push_back(event.token);
    }
    return tokens;
  }

  // Of the request's last event; kNone while it runs.
  FinishReason FinishOf(RequestId id) const {
    const std::vector<TokenEvent> events = EventsOf(id);
    return events.empty() ? FinishReason::kNone : events.back().finish;
  }

  int64_t num_finished() const {
    const std::lock_guard lock(mutex_);
    return num_finished_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, std::vector<TokenEvent>> events_;
  int64_t num_finished_ = 0;
};

}  // namespace nsa
