#include "bench/serving/sse_reader.h"

#include <gmock/gmock.h>

#include <vector>

namespace nsa::bench {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Events(const std::string& bytes, size_t piece_bytes) {
  SseReader reader;
  std::vector<std::string> events;
  for (size_t begin = 0; begin < bytes.size(); begin += piece_bytes) {
    reader.Push(std::string_view(bytes).substr(begin, piece_bytes),
                [&](std::string_view data) { events.emplace_back(data); });
  }
  return events;
}

TEST(SseReaderTest, FindsEventsHoweverTheyAreCut) {
  const std::string bytes =
      "data: one\n\n: ping\n\ndata:two\r\n\r\nid: 7\ndata: a\ndata: b\n\ndata: cut";
  for (const size_t piece_bytes : {size_t{1}, size_t{2}, size_t{7}, bytes.size()}) {
    EXPECT_THAT(Events(bytes, piece_bytes), ElementsAre("one", "two", "a\nb")) << piece_bytes;
  }
}

TEST(ParseStreamEventTest, ReadsCompletions) {
  const StreamEvent event = ParseStreamEvent(
      R"({"choices":[{"index":0,"text":"ab","finish_reason":null},{"text":"c"}],"usage":null})");
  EXPECT_EQ(event.text, "abc");
  EXPECT_FALSE(event.is_end || event.is_error || event.completion_tokens.has_value());
}

TEST(ParseStreamEventTest, ReadsChats) {
  EXPECT_EQ(ParseStreamEvent(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})").text,
            "");
  EXPECT_EQ(ParseStreamEvent(R"({"choices":[{"delta":{"content":"hi"}}]})").text, "hi");
  EXPECT_EQ(ParseStreamEvent(R"({"choices":[{"delta":{"content":null}}]})").text, "");
}

TEST(ParseStreamEventTest, ReadsUsageEndAndErrors) {
  const StreamEvent usage = ParseStreamEvent(R"({"choices":[],"usage":{"completion_tokens":12}})");
  EXPECT_EQ(usage.completion_tokens, 12);
  EXPECT_TRUE(ParseStreamEvent("[DONE]").is_end);
  EXPECT_TRUE(ParseStreamEvent(R"({"error":{"message":"no"}})").is_error);
  EXPECT_TRUE(ParseStreamEvent("{").is_error);
}

}  // namespace
}  // namespace nsa::bench
