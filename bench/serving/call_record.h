#pragma once
// CallRecord: what a client saw of one call.

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace nsa::bench {

// Monotonic; processes of one machine share it.
using Clock = std::chrono::steady_clock;

enum class Outcome : uint8_t {
  kOk,
  kCancelled,    // by us, as planned
  kRefused,      // 429 or 503; RESOURCE_EXHAUSTED or UNAVAILABLE
  kClientError,  // any other 4xx: the load is wrong
  kServerError,  // any other 5xx, or an error in mid-stream
  kConnection,   // not connected, or ended too early
  kTimeout,      // ours
  kCount,
};
inline constexpr const char* kOutcomeNames[] = {
    "ok", "cancelled", "refused", "client_error", "server_error", "connection", "timeout"};

struct CallRecord {
  Clock::time_point arrival;  // when it should have been sent
  Clock::time_point sent;     // when we began to; the difference is our own lateness
  Clock::time_point first_token, last_token;
  Clock::time_point end;
  Outcome outcome = Outcome::kConnection;
  std::string status;           // "200", "429"; over gRPC "OK"; empty: none came
  int64_t prompt_tokens = 0;    // as planned
  int64_t num_events = 0;       // with text
  int64_t num_tokens = 0;       // as the server counted them, else num_events
  std::vector<float> gaps_ms;   // between events with text
  std::vector<float> added_ms;  // of tokens that say when they were committed

  // An event with text has come.
  void TakeToken(Clock::time_point now) {
    if (num_events++ == 0) {
      first_token = now;
    } else {
      gaps_ms.push_back(std::chrono::duration<float, std::milli>(now - last_token).count());
    }
    last_token = now;
  }
};

}  // namespace nsa::bench
