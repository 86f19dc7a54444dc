#pragma once
// SseReader: the events of a stream of completions, from bytes cut anywhere.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace nsa::bench {

// What one event says that a load generator wants to know.
struct StreamEvent {
  std::string text;       // new text of any choice
  bool is_end = false;    // [DONE]
  bool is_error = false;  // an error, or no JSON
  std::optional<int64_t> completion_tokens;
};

// Of the data of one event, for completions and chat completions.
StreamEvent ParseStreamEvent(std::string_view data);

class SseReader {
 public:
  // Calls `on_event` with the data of every event that is complete with these bytes; comments and
  // other fields are dropped.
  void Push(std::string_view bytes, const std::function<void(std::string_view)>& on_event);

 private:
  void TakeLine(std::string_view line, const std::function<void(std::string_view)>& on_event);

  std::string line_;  // its beginning
  std::string data_;  // of the event so far
  bool has_data_ = false;
};

}  // namespace nsa::bench
