// What the answering half of a connection tells the log.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "server/request_log.h"
#include "tests/server/http/http_server_fixture.h"

namespace nsa {
namespace {

// What the log says of a request: "route status error trace_id".
class HttpLogTest : public HttpServerTest {
 protected:
  ~HttpLogTest() override {
    held_.clear();
    server_.reset();
  }

  void StartWithLog(HttpOptions options = {}) {
    RequestLogOptions log{.access = AccessLog::kOn};
    log.write = [this](LogLevel /*level*/, const LogFields& fields) {
      std::map<std::string, std::string> line;
      for (const auto& [name, json] : fields.fields()) line[name] = json;
      const std::lock_guard lock(log_mutex_);
      lines_.push_back(absl::StrCat(line["route"], " ", line["status"], " ", line["error"], " ",
                                    line["trace_id"]));
      written_.notify_all();
    };
    options.log = std::make_shared<const RequestLogOptions>(std::move(log));
    Start(std::move(options));
  }

  // The nth line, once it is there.
  std::string Line(size_t n = 0) {
    std::unique_lock lock(log_mutex_);
    written_.wait_for(lock, std::chrono::seconds(10), [&] { return lines_.size() > n; });
    return lines_.size() > n ? lines_[n] : "no line";
  }

  std::mutex log_mutex_;
  std::condition_variable written_;
  std::vector<std::string> lines_;
};

TEST_F(HttpLogTest, EachRequestHasALine) {
  StartWithLog();
  RawClient client(server_->port());
  client.Send(Get("/echo") + Get("/stream") + Get("/dropped"));
  for (int i = 0; i < 3; ++i) client.Receive();
  EXPECT_EQ(Line(0), "\"/echo\" 200  ");
  EXPECT_EQ(Line(1), "\"/stream\" 200  ");
  EXPECT_EQ(Line(2), "\"/dropped\" 500 \"internal_error\" ");
  RawClient half(server_->port());
  half.Send(Get("/half"));
  half.ReadToEnd();
  EXPECT_EQ(Line(3), "\"/half\" 200 \"internal_error\" ");
  RawClient bad(server_->port());
  bad.Send("rubbish\r\n\r\n");
  bad.Receive();
  EXPECT_EQ(Line(4), "\"none\" 400 \"malformed_request\" ");
}

TEST_F(HttpLogTest, AClientThatLeavesIsNamed) {
  StartWithLog();
  RawClient before(server_->port());
  before.Send(Get("/hold"));
  Wait(0);
  before.Close();
  Wait(0).disconnected->Wait();
  EXPECT_EQ(Line(0), "\"/hold\" 499 \"client_left\" ");
  RawClient within(server_->port());
  within.Send(Get("/silent"));
  Wait(1);
  within.Close();
  EXPECT_EQ(Line(1), "\"/silent\" 200 \"client_left\" ");
}

TEST_F(HttpLogTest, ASlowReaderIsNamed) {
  StartWithLog({.max_buffered_bytes = 1000, .socket_send_buffer_bytes = 4096});
  RawClient client(server_->port(), /*receive_buffer_bytes=*/4096);
  client.Send(Get("/silent"));
  const Held held = Wait();
  const std::string chunk(1000, 'x');
  for (int i = 0; i < 64'000 && !held.disconnected->is_set(); ++i) held.responder->Write(chunk);
  EXPECT_EQ(Line(), "\"/silent\" 200 \"client_too_slow\" ");
}

TEST_F(HttpLogTest, OneValidTraceparentCounts) {
  StartWithLog();
  const std::string header =
      "TraceParent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 \r\n";
  const auto request = [](const std::string& headers) {
    return "GET /echo HTTP/1.1\r\nHost: h\r\n" + headers + "\r\n";
  };
  RawClient client(server_->port());
  client.Send(request(header) + request(header + header) + request("traceparent: 00-x\r\n"));
  for (int i = 0; i < 3; ++i) client.Receive();
  EXPECT_EQ(Line(0), "\"/echo\" 200  \"4bf92f3577b34da6a3ce929d0e0e4736\"");
  EXPECT_EQ(Line(1), "\"/echo\" 200  ");
  EXPECT_EQ(Line(2), "\"/echo\" 200  ");
}

}  // namespace
}  // namespace nsa
