#include "server/http/http_connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/server/http/http_server_fixture.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

using HttpConnectionTest = HttpServerTest;

TEST_F(HttpConnectionTest, AnswersAndKeepsTheConnection) {
  Start();
  RawClient client(server_->port());
  for (int i = 0; i < 3; ++i) {
    client.Send(Post("/echo", absl::StrCat("body", i)));
    const RawResponse response = client.Receive();
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, absl::StrCat("POST body", i));
    EXPECT_EQ(response.headers.at("content-type"), "text/plain");
    EXPECT_EQ(response.headers.count("connection"), 0U);
  }
  EXPECT_EQ(server_->num_connections(), 1);
  EXPECT_EQ(Count("/echo 200"), 3);
}

TEST_F(HttpConnectionTest, ClosesWhenAsked) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  const RawResponse response = client.Receive();
  EXPECT_EQ(response.headers.at("connection"), "close");
  EXPECT_TRUE(client.WaitForClose(absl::Seconds(5)));
}

TEST_F(HttpConnectionTest, AnswersPipelinedRequestsInOrder) {
  Start();
  RawClient client(server_->port());
  std::string requests;
  for (int i = 0; i < 200; ++i) requests += Post("/echo", absl::StrCat(i));
  client.Send(requests);
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(client.Receive().body, absl::StrCat("POST ", i));
  }
}

TEST_F(HttpConnectionTest, PipelinedBehindAHeldRequestWaitsForIt) {
  Start();
  RawClient client(server_->port());
  // More than the server keeps, so that it has to stop reading and go on later.
  const std::string large(60 << 10, 'x');
  client.Send(Get("/hold") + Post("/echo", large) + Post("/echo", large) + Post("/echo", "z"));
  Wait().responder->Send({.body = "first"});
  EXPECT_EQ(client.Receive().body, "first");
  EXPECT_EQ(client.Receive().body, "POST " + large);
  EXPECT_EQ(client.Receive().body, "POST " + large);
  EXPECT_EQ(client.Receive().body, "POST z");
}

TEST_F(HttpConnectionTest, StreamsInChunksByteForByte) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/stream"));
  const std::string head = client.ReadUntil("\r\n\r\n");
  EXPECT_THAT(head, StartsWith("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                               "Transfer-Encoding: chunked\r\n"));
  EXPECT_EQ(client.ReadUntil("0\r\n\r\n"), "3\r\none\r\n4\r\ntwo\n\r\n0\r\n\r\n");
  client.Send(Get("/echo"));
  EXPECT_EQ(client.Receive().body, "GET ");
}

TEST_F(HttpConnectionTest, Http10GetsAPlainStreamThatEndsWithTheConnection) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /stream HTTP/1.0\r\n\r\n");
  const std::string head = client.ReadUntil("\r\n\r\n");
  EXPECT_THAT(head, HasSubstr("Connection: close"));
  EXPECT_EQ(client.ReadToEnd(), "onetwo\n");
  RawClient keeping(server_->port());
  keeping.Send("GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(keeping.Receive().headers.at("connection"), "keep-alive");
}

TEST_F(HttpConnectionTest, HeadHasLengthButNoBody) {
  Start();
  RawClient client(server_->port());
  client.Send("HEAD /echo HTTP/1.1\r\nHost: h\r\n\r\n" + Get("/echo"));
  const RawResponse head = client.Receive(/*has_body=*/false);
  EXPECT_EQ(head.headers.at("content-length"), "5");
  EXPECT_EQ(client.Receive().body, "GET ");
}

TEST_F(HttpConnectionTest, EveryResponseHasARequestId) {
  Start();
  EXPECT_EQ(
      Fetch(server_->port(), Get("/echo", "x-request-id: My.Id_1-\r\n")).headers.at("x-request-id"),
      "My.Id_1-");
  const RawResponse own = Fetch(server_->port(), Get("/echo", "x-request-id: no spaces\r\n"));
  EXPECT_THAT(own.headers.at("x-request-id"), StartsWith("req-"));
  const RawResponse refused = Fetch(server_->port(), "garbage\r\n\r\n");
  EXPECT_EQ(refused.status, 400);
  EXPECT_THAT(refused.headers.at("x-request-id"), StartsWith("req-"));
}

TEST_F(HttpConnectionTest, RefusalsHaveABodyAndCloseTheConnection) {
  Start({.max_header_bytes = 1000, .max_body_bytes = 1000});
  // The refusal arrives although the client goes on sending.
  const std::pair<std::string, int> cases[] = {
      {Post("/echo", std::string(100000, 'x')), 413},
      {Get("/echo", "X: " + std::string(1000, 'x') + "\r\n"), 431},
      {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
       400},
  };
  for (const auto& [request, status] : cases) {
    RawClient client(server_->port());
    client.Send(request);
    const RawResponse response = client.Receive();
    EXPECT_EQ(response.status, status);
    EXPECT_EQ(response.headers.at("connection"), "close");
    EXPECT_THAT(response.body, StartsWith(R"({"error":{"message":")"));
    EXPECT_EQ(Count(absl::StrCat(" ", status)), 1);
  }
}

TEST_F(HttpConnectionTest, SendsContinueWhenExpected) {
  Start();
  RawClient client(server_->port());
  client.Send(
      "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("hi");
  EXPECT_EQ(client.Receive().body, "POST hi");
}

TEST_F(HttpConnectionTest, ABodyThatIsNotNeededIsNotWaitedFor) {
  HttpOptions options;
  options.needs_body = [](const HttpRequest& head) { return head.path != "/echo"; };
  Start(std::move(options));
  for (const char* header : {"", "Expect: 100-continue\r\n"}) {
    RawClient client(server_->port());
    client.Send(absl::StrCat("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n",
                             header, "\r\n"));
    const RawResponse response = client.Receive();
    EXPECT_EQ(response.body, "POST ");
    EXPECT_EQ(response.headers.at("connection"), "close");
    // What was on its way is not taken for the next request.
    client.Send(Get("/echo") + Get("/echo"));
    EXPECT_EQ(client.ReadToEnd(), "");
  }
  RawClient client(server_->port());
  client.Send(Get("/echo") + Post("/other", "xx"));
  EXPECT_EQ(client.Receive().body, "GET ");
  EXPECT_EQ(client.Receive().status, 500);  // a path that the handler does not know
}

TEST_F(HttpConnectionTest, BodiesTogetherAreBounded) {
  Start({.max_body_bytes = 100 << 10, .max_total_body_bytes = 150 << 10});
  const std::string body(100 << 10, 'x');
  const std::string request = Post("/echo", body);
  RawClient slow(server_->port()), other(server_->port());
  slow.Send(request.substr(0, request.size() - 1));
  ASSERT_TRUE(WaitForConnections(2));
  absl::SleepFor(absl::Milliseconds(100));   // its head is read before
  ASSERT_TRUE(WaitForStatus(request, 503));  // those that ask for its place
  other.Send(request);
  const RawResponse refused = other.Receive();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "5");
  EXPECT_EQ(refused.headers.at("connection"), "close");
  EXPECT_THAT(refused.body, HasSubstr("limit of 153600 bytes"));
  EXPECT_EQ(Fetch(server_->port(), Post("/echo", body.substr(0, 40 << 10))).status, 200);
  slow.Send("x");
  EXPECT_EQ(slow.Receive().body, "POST " + body);
  // All of it comes back, a moment after the answer, also what the refused one held.
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(WaitForStatus(request, 200));
}

TEST_F(HttpConnectionTest, ABodyCountsUntilItsConnectionEnds) {
  Start({.max_body_bytes = 100 << 10, .max_total_body_bytes = 110 << 10});
  const std::string request = Post("/echo", std::string(100 << 10, 'x'));
  {
    RawClient leaving(server_->port());
    leaving.Send(request.substr(0, 90 << 10));
    absl::SleepFor(absl::Milliseconds(100));
    EXPECT_TRUE(WaitForStatus(request, 503));
  }
  ASSERT_TRUE(WaitForConnections(0));
  EXPECT_EQ(Fetch(server_->port(), request).status, 200);
}

// A request that is being answered does not count: its text has become something else.
TEST_F(HttpConnectionTest, ABodyDoesNotCountWhileItsRequestRuns) {
  Start({.max_body_bytes = 100 << 10, .max_total_body_bytes = 100 << 10});
  const std::string body(100 << 10, 'x');
  RawClient first(server_->port());
  first.Send(Post("/hold", body));
  const Held held = Wait();
  EXPECT_TRUE(WaitForStatus(Post("/echo", body), 200));  // once the handler has returned
  held.responder->Send({.body = "done"});
  EXPECT_EQ(first.Receive().body, "done");
}

TEST_F(HttpConnectionTest, NoticesADepartedClientBeforeTheResponse) {
  Start();
  RawClient closing(server_->port()), resetting(server_->port()), half(server_->port());
  closing.Send(Get("/hold"));
  Held first = Wait(0);
  resetting.Send(Get("/hold"));
  Held second = Wait(1);
  half.Send(Get("/hold"));
  Held third = Wait(2);
  EXPECT_FALSE(first.disconnected->is_set());
  closing.Close();
  resetting.Reset();
  half.HalfClose();
  for (const Held& held : {first, second, third}) {
    EXPECT_TRUE(held.disconnected->Wait());
  }
  EXPECT_TRUE(WaitForConnections(0));
  EXPECT_EQ(Count("/hold 499"), 3);
  first.responder->Send({.body = "too late"});  // of no effect
}

TEST_F(HttpConnectionTest, NoticesADepartedClientInMidStream) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/silent"));
  Held held = Wait();
  held.responder->Write("x");
  client.ReadUntil("x");
  client.Close();
  EXPECT_TRUE(held.disconnected->Wait());
  EXPECT_EQ(Count("/silent 200"), 1);
}

TEST_F(HttpConnectionTest, AHalfClosedClientStillGetsAResponseThatIsReady) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/echo"));
  client.HalfClose();
  EXPECT_EQ(client.Receive().body, "GET ");
}

TEST_F(HttpConnectionTest, OnDisconnectDoesNotRunAfterACompleteResponse) {
  Start();
  Held held;
  {
    RawClient client(server_->port());
    client.Send(Get("/hold"));
    held = Wait();
    held.responder->Send({.body = "done"});
    EXPECT_EQ(client.Receive().body, "done");
    client.Send(Get("/echo"));
    EXPECT_EQ(client.Receive().body, "GET ");
  }
  EXPECT_TRUE(WaitForConnections(0));
  EXPECT_FALSE(held.disconnected->is_set());
}

TEST_F(HttpConnectionTest, AResponderOfAnEarlierRequestCannotAnswerALaterOne) {
  Start();
  RawClient client(server_->port());
  client.Send(Get("/hold"));
  const Held first = Wait(0);
  first.responder->Send({.body = "first"});
  EXPECT_EQ(client.Receive().body, "first");
  client.Send(Get("/hold"));
  const Held second = Wait(1);
  first.responder->Send({.body = "again"});
  first.responder->Write("again");
  first.responder->Close();
  second.responder->Send({.body = "second"});
  EXPECT_EQ(client.Receive().body, "second");
}

TEST_F(HttpConnectionTest, ADroppedResponderAnswers500OrEndsTheStream) {
  Start();
  const RawResponse dropped = Fetch(server_->port(), Get("/dropped"));
  EXPECT_EQ(dropped.status, 500);
  EXPECT_THAT(dropped.body, HasSubstr("internal_error"));
  const RawResponse half = Fetch(server_->port(), Get("/half"));
  EXPECT_EQ(half.status, 200);
  EXPECT_FALSE(half.complete);
}

TEST_F(HttpConnectionTest, ASlowReaderIsDroppedAtTheBound) {
  Start({.max_buffered_bytes = 64 << 10, .socket_send_buffer_bytes = 4096});
  RawClient client(server_->port(), /*receive_buffer_bytes=*/4096);
  client.Send(Get("/silent"));
  Held held = Wait();
  int64_t written = 0;
  const std::string chunk(1000, 'x');
  while (!held.disconnected->is_set() && written < (64 << 20)) {
    held.responder->Write(chunk);
    written += static_cast<int64_t>(chunk.size());
    absl::SleepFor(absl::Microseconds(100));
  }
  // What was taken: the bound twice (being sent, waiting) and the kernel's buffers.
  EXPECT_LT(written, 1 << 20);
  EXPECT_GT(written, 64 << 10);
  EXPECT_TRUE(WaitForConnections(0));
}

TEST_F(HttpConnectionTest, ABurstFromAnotherThreadIsBoundedToo) {
  Start({.num_threads = 1, .max_buffered_bytes = 64 << 10, .socket_send_buffer_bytes = 4096});
  RawClient client(server_->port(), /*receive_buffer_bytes=*/4096);
  client.Send(Get("/silent"));
  Held held = Wait();
  const std::string chunk(1000, 'x');
  for (int i = 0; i < 64'000 && !held.disconnected->is_set(); ++i) held.responder->Write(chunk);
  EXPECT_TRUE(held.disconnected->Wait());
}

// An echoed prompt with its log-probabilities is one chunk.
TEST_F(HttpConnectionTest, AChunkLargerThanTheBoundArrivesWithWhatFollowsIt) {
  Start({.num_threads = 1, .max_buffered_bytes = 64 << 10, .socket_send_buffer_bytes = 4096});
  RawClient client(server_->port());
  client.Send(Get("/silent"));
  Held held = Wait();
  const std::string large(4 << 20, 'x');
  held.responder->Write(large);
  for (int i = 0; i < 50; ++i) held.responder->Write("small");
  held.responder->Close();
  const std::string received = client.ReadUntil("\r\n0\r\n\r\n");
  EXPECT_THAT(received, HasSubstr(large));
  EXPECT_FALSE(held.disconnected->is_set());
}

TEST_F(HttpConnectionTest, SilentStreamsGetHeartbeats) {
  Start({.heartbeat_interval = absl::Milliseconds(100)});
  RawClient client(server_->port());
  const absl::Time begin = absl::Now();
  client.Send(Get("/silent"));
  Held held = Wait();
  EXPECT_THAT(client.ReadUntil(":\n\r\n"), HasSubstr("\r\n\r\n2\r\n:\n\r\n"));
  EXPECT_EQ(client.ReadUntil(":\n\r\n"), "2\r\n:\n\r\n");
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(200));
  held.responder->Write("data");
  held.responder->Close();
  EXPECT_THAT(client.ReadUntil("0\r\n\r\n"), HasSubstr("4\r\ndata\r\n0\r\n\r\n"));
}

}  // namespace
}  // namespace nsa
