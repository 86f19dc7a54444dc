#include "bench/serving/sse_reader.h"

#include "nlohmann/json.hpp"

namespace nsa::bench {
namespace {

using Json = nlohmann::json;

// The text at a path of keys, or nothing.
void AppendText(const Json& object, const char* key, std::string* text) {
  const auto found = object.find(key);
  if (found != object.end() && found->is_string()) *text += found->get_ref<const std::string&>();
}

void AppendChoice(const Json& choice, std::string* text) {
  if (!choice.is_object()) return;
  AppendText(choice, "text", text);
  const auto delta = choice.find("delta");
  if (delta != choice.end() && delta->is_object()) AppendText(*delta, "content", text);
}

}  // namespace

StreamEvent ParseStreamEvent(std::string_view data) {
  StreamEvent event;
  if (data == "[DONE]") {
    event.is_end = true;
    return event;
  }
  const Json json = Json::parse(data, nullptr, /*allow_exceptions=*/false);
  event.is_error = !json.is_object() || json.contains("error");
  if (event.is_error) return event;
  if (const auto choices = json.find("choices"); choices != json.end()) {
    for (const Json& choice : *choices) AppendChoice(choice, &event.text);
  }
  if (const auto usage = json.find("usage"); usage != json.end() && usage->is_object()) {
    const auto tokens = usage->find("completion_tokens");
    if (tokens != usage->end() && tokens->is_number_integer()) event.completion_tokens = *tokens;
  }
  return event;
}

void SseReader::Push(std::string_view bytes,
                     const std::function<void(std::string_view)>& on_event) {
  while (true) {
    const size_t end = bytes.find('\n');
    if (end == std::string_view::npos) break;
    line_ += bytes.substr(0, end);
    bytes.remove_prefix(end + 1);
    if (line_.ends_with('\r')) line_.pop_back();
    TakeLine(line_, on_event);
    line_.clear();
  }
  line_ += bytes;
}

void SseReader::TakeLine(std::string_view line,
                         const std::function<void(std::string_view)>& on_event) {
  constexpr std::string_view kData = "data:";
  if (line.empty()) {
    if (has_data_) on_event(data_);
    has_data_ = false;
    data_.clear();
  } else if (line.starts_with(kData)) {
    line.remove_prefix(kData.size());
    if (line.starts_with(' ')) line.remove_prefix(1);
    if (has_data_) data_ += '\n';
    data_ += line;
    has_data_ = true;
  }
}

}  // namespace nsa::bench
