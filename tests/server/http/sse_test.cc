#include "server/http/sse.h"

#include <gtest/gtest.h>

namespace nsa {
namespace {

TEST(Sse, FramesAnEvent) {
  EXPECT_EQ(SseEvent("{\"a\":1}"), "data: {\"a\":1}\n\n");
  EXPECT_EQ(kSseDone, "data: [DONE]\n\n");
  EXPECT_EQ(kSsePing, ": ping\n\n");
}

TEST(SseDeathTest, AnEventIsOneLine) {
  EXPECT_DEATH(SseEvent("a\nb"), "one line");
  EXPECT_DEATH(SseEvent("a\rb"), "one line");
}

TEST(Sse, TheHeadKeepsProxiesFromBuffering) {
  const HttpResponse head = SseHead();
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.content_type, "text/event-stream; charset=utf-8");
  EXPECT_EQ(head.headers,
            (HttpHeaders{{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}));
}

}  // namespace
}  // namespace nsa
