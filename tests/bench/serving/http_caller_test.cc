#include "bench/serving/http_caller.h"

#include <gmock/gmock.h>

#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <deque>
#include <thread>

#include "absl/strings/str_cat.h"
#include "bench/serving/runner.h"

namespace nsa::bench {
namespace {

using boost::asio::ip::tcp;
using ::testing::HasSubstr;

constexpr char kRequestEnd[] = "\"temperature\":0}";  // keys are sorted
constexpr char kOneToken[] = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";

std::string Response(const std::string& status, const std::string& body) {
  return absl::StrCat("HTTP/1.1 ", status, "\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
}

std::string Streamed(const std::string& body) {
  return absl::StrCat("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                      absl::Hex(body.size()), "\r\n", body, "\r\n0\r\n\r\n");
}

// A server of one connection after another: what each answers, in order. It reads a request, sends
// the next answer, and closes when a connection has no answer left.
class CannedServer {
 public:
  explicit CannedServer(std::vector<std::deque<std::string>> connections)
      : acceptor_(io_, tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0)),
        thread_([this, connections = std::move(connections)] {
          for (const auto& answers : connections) Serve(answers);
        }) {}
  ~CannedServer() {
    if (thread_.joinable()) thread_.join();
  }

  std::string port() const { return absl::StrCat(acceptor_.local_endpoint().port()); }
  // Once every answer has been sent: the requests.
  std::string Finish() {
    thread_.join();
    return requests_;
  }

 private:
  void Serve(std::deque<std::string> answers) {
    boost::system::error_code error;
    tcp::socket socket(io_);
    acceptor_.accept(socket, error);
    for (; !answers.empty() && !error; answers.pop_front()) {
      std::string request;
      boost::asio::read_until(socket, boost::asio::dynamic_buffer(request), kRequestEnd, error);
      requests_ += request;
      boost::asio::write(socket, boost::asio::buffer(answers.front()), error);
    }
  }

  boost::asio::io_context io_;
  tcp::acceptor acceptor_;
  std::string requests_;
  std::thread thread_;
};

class HttpCallerTest : public ::testing::Test {
 protected:
  HttpCallerTest() {
    options_.host = "127.0.0.1";
    options_.concurrency = 1;
    options_.num_calls = 1;
    options_.workload.prompt_tokens = LengthDistribution(3);
    options_.workload.output_tokens = LengthDistribution(8);
  }

  std::vector<CallRecord> Run(const std::string& port) {
    options_.port = port;
    boost::asio::io_context loop;
    HttpCaller caller(options_, &loop);
    EXPECT_TRUE(caller.Resolve().ok());
    return RunLoad(options_, &caller, &loop).calls;
  }
  CallRecord RunOne(const std::string& answer) {
    CannedServer server({{answer}});
    return Run(server.port()).front();
  }

  BenchOptions options_;
};

TEST_F(HttpCallerTest, ReadsAStream) {
  const CallRecord call = RunOne(Streamed(absl::StrCat(
      kOneToken, kOneToken, ": ping\n\n",
      "data: {\"choices\":[],\"usage\":{\"completion_tokens\":5}}\n\ndata: [DONE]\n\n")));
  EXPECT_EQ(call.outcome, Outcome::kOk);
  EXPECT_EQ(call.status, "200");
  EXPECT_EQ(call.num_events, 2);
  EXPECT_EQ(call.num_tokens, 5);
  EXPECT_EQ(call.gaps_ms.size(), 1U);
  EXPECT_LE(call.arrival, call.sent);
  EXPECT_LE(call.first_token, call.end);
}

TEST_F(HttpCallerTest, TellsFailuresApart) {
  EXPECT_EQ(RunOne(Response("429 Too Many Requests", "{}")).outcome, Outcome::kRefused);
  EXPECT_EQ(RunOne(Response("503 Service Unavailable", "{}")).outcome, Outcome::kRefused);
  EXPECT_EQ(RunOne(Response("400 Bad Request", "{}")).outcome, Outcome::kClientError);
  EXPECT_EQ(RunOne(Response("500 Internal Server Error", "{}")).outcome, Outcome::kServerError);
  EXPECT_EQ(RunOne(Streamed("data: {\"error\":{}}\n\n")).outcome, Outcome::kServerError);
  EXPECT_EQ(RunOne(Streamed(kOneToken)).outcome, Outcome::kConnection) << "no [DONE]";
  EXPECT_EQ(RunOne("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nda").outcome,
            Outcome::kConnection);
  EXPECT_EQ(RunOne("what?\r\n\r\n").outcome, Outcome::kConnection);
}

TEST_F(HttpCallerTest, NobodyListens) {
  std::string port;
  {
    boost::asio::io_context io;
    port = absl::StrCat(tcp::acceptor(io, tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0))
                            .local_endpoint()
                            .port());
  }
  EXPECT_EQ(Run(port).front().outcome, Outcome::kConnection);
}

TEST_F(HttpCallerTest, LeavesAsPlanned) {
  options_.workload.cancelled_share = 1;
  options_.workload.output_tokens = LengthDistribution(1);  // before the first token
  EXPECT_EQ(RunOne(Streamed(kOneToken)).outcome, Outcome::kCancelled);
  options_.workload.output_tokens = LengthDistribution(1000);  // later than the stream's end
  EXPECT_EQ(RunOne(Streamed(absl::StrCat(kOneToken, "data: [DONE]\n\n"))).outcome, Outcome::kOk);
}

TEST_F(HttpCallerTest, TimesOut) {
  options_.timeout = absl::Milliseconds(30);
  boost::asio::io_context io;
  tcp::acceptor silent(io, tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0));
  EXPECT_EQ(Run(absl::StrCat(silent.local_endpoint().port())).front().outcome, Outcome::kTimeout);
}

TEST_F(HttpCallerTest, KeepsConnectionsAndReplacesThoseThatWereClosed) {
  const std::string answer = Streamed(absl::StrCat(kOneToken, "data: [DONE]\n\n"));
  options_.num_calls = 3;
  CannedServer server({{answer, answer}, {answer}});
  for (const CallRecord& call : Run(server.port())) EXPECT_EQ(call.outcome, Outcome::kOk);
}

TEST_F(HttpCallerTest, SendsStandardFieldsUnlessAsked) {
  CannedServer server({{Streamed("data: [DONE]\n\n")}});
  options_.api_key = "secret-key";
  options_.model = "some";
  Run(server.port());
  const std::string requests = server.Finish();
  EXPECT_THAT(requests, HasSubstr("POST /v1/completions HTTP/1.1\r\n"));
  EXPECT_THAT(requests, HasSubstr("Authorization: Bearer secret-key\r\n"));
  EXPECT_THAT(requests, HasSubstr("\"model\":\"some\""));
  EXPECT_THAT(requests, HasSubstr("\"max_tokens\":8"));
  EXPECT_THAT(requests, Not(HasSubstr("ignore_eos")));
}

TEST_F(HttpCallerTest, MeasuresCommitTimes) {
  options_.commit_times = true;
  const auto now_us =
      std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch())
          .count();
  const std::string stamp = absl::StrCat(absl::Hex(now_us & 0xffffff, absl::kZeroPad6), " ");
  const CallRecord call = RunOne(Streamed(
      absl::StrCat("data: {\"choices\":[{\"text\":\"", stamp, stamp, "\"}]}\n\ndata: [DONE]\n\n")));
  ASSERT_EQ(call.added_ms.size(), 2U);
  EXPECT_GT(call.added_ms[0], 0);
  EXPECT_LT(call.added_ms[0], 5000);
}

}  // namespace
}  // namespace nsa::bench
