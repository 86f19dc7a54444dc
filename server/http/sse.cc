#include "server/http/sse.h"

#include "base/check.h"

namespace nsa {

std::string SseEvent(std::string_view data) {
  NSA_CHECK(data.find_first_of("\r\n") == std::string_view::npos) << "an event is one line";
  std::string event = "data: ";
  event += data;
  return event += "\n\n";
}

HttpResponse SseHead() {
  return {.content_type = "text/event-stream; charset=utf-8",
          .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}};
}

}  // namespace nsa
