#include "server/http/http_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include "tests/server/http/http_server_fixture.h"
#include "tests/support/test_certificate.h"

namespace nsa {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ::testing::HasSubstr;

// A blocking TLS client that trusts one certificate and checks the name.
class TlsClient {
 public:
  TlsClient(int port, const std::string& trusted) : context_(asio::ssl::context::tls_client) {
    context_.add_certificate_authority(asio::buffer(trusted));
    context_.set_verify_mode(asio::ssl::verify_peer);
    stream_.emplace(io_, context_);
    stream_->lowest_layer().connect(
        tcp::endpoint(asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(port)));
  }
  SSL* ssl() { return stream_->native_handle(); }

  boost::system::error_code Handshake() {
    boost::system::error_code error;
    stream_->handshake(asio::ssl::stream_base::client, error);
    return error;
  }
  void Send(const std::string& bytes) { asio::write(*stream_, asio::buffer(bytes)); }
  // Sends and reads until the server closes.
  std::string Talk(const std::string& bytes) {
    boost::system::error_code error;
    asio::write(*stream_, asio::buffer(bytes), error);
    std::string answer;
    if (!error) asio::read(*stream_, asio::dynamic_buffer(answer), error);
    end_ = error;
    return answer;
  }
  boost::system::error_code end() const { return end_; }  // how Talk's reading ended

 private:
  asio::io_context io_;
  asio::ssl::context context_;
  std::optional<asio::ssl::stream<tcp::socket>> stream_;
  boost::system::error_code end_;
};

class HttpTlsTest : public HttpServerTest {
 protected:
  void SetUp() override { Start({.max_connections = 2, .tls = files_}); }
  const TlsFiles files_ = MakeTestCertificate();
};

TEST_F(HttpTlsTest, AnswersAndStreams) {
  TlsClient client(server_->port(), files_.certificate);
  ASSERT_FALSE(client.Handshake());
  const std::string answer = client.Talk(
      Post("/echo", "hello") + "GET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("POST hello"));
  EXPECT_THAT(answer, HasSubstr("one"));
  EXPECT_THAT(answer, HasSubstr("two\n"));
  // With TLS's farewell, so that the client knows that nothing was cut off.
  EXPECT_EQ(client.end(), asio::error::eof);
  EXPECT_TRUE(WaitForConnections(0));
}

TEST_F(HttpTlsTest, LargeBodiesArriveWhole) {
  const std::string body(3 << 20, 'x');
  TlsClient client(server_->port(), files_.certificate);
  ASSERT_FALSE(client.Handshake());
  const std::string answer =
      client.Talk(absl::StrCat("POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n",
                               "Content-Length: ", body.size(), "\r\n\r\n", body));
  EXPECT_TRUE(answer.ends_with("POST " + body));
}

TEST_F(HttpTlsTest, ClientsThatTrustAnotherCertificateRefuse) {
  TlsClient client(server_->port(), MakeTestCertificate().certificate);
  EXPECT_TRUE(client.Handshake());
  EXPECT_TRUE(WaitForConnections(0));
}

TEST_F(HttpTlsTest, OldVersionsAreRefused) {
  TlsClient client(server_->port(), files_.certificate);
  // At its usual level OpenSSL would not even offer it.
  SSL_set_security_level(client.ssl(), 0);
  SSL_set_min_proto_version(client.ssl(), TLS1_1_VERSION);
  SSL_set_max_proto_version(client.ssl(), TLS1_1_VERSION);
  // The alert is the server's.
  EXPECT_EQ(ERR_GET_REASON(static_cast<unsigned long>(client.Handshake().value())),
            SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
  TlsClient newer(server_->port(), files_.certificate);
  SSL_set_max_proto_version(newer.ssl(), TLS1_2_VERSION);
  EXPECT_FALSE(newer.Handshake());
}

TEST_F(HttpTlsTest, PlainHttpGetsNoAnswer) {
  RawClient client(server_->port());
  client.Send("GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(client.ReadToEnd().find("HTTP/1.1"), std::string::npos);
  EXPECT_TRUE(WaitForConnections(0));
}

TEST_F(HttpTlsTest, APeerThatLeavesIsNoticed) {
  auto client = std::make_unique<TlsClient>(server_->port(), files_.certificate);
  ASSERT_FALSE(client->Handshake());
  client->Send("GET /silent HTTP/1.1\r\nHost: h\r\n\r\n");
  const Held held = Wait();
  client.reset();
  EXPECT_TRUE(held.disconnected->Wait());
}

TEST_F(HttpTlsTest, ConnectionsOverTheLimitAreToldSo) {
  TlsClient one(server_->port(), files_.certificate), two(server_->port(), files_.certificate);
  ASSERT_FALSE(one.Handshake());
  ASSERT_FALSE(two.Handshake());
  ASSERT_TRUE(WaitForConnections(2));
  TlsClient three(server_->port(), files_.certificate);
  ASSERT_FALSE(three.Handshake());
  EXPECT_THAT(three.Talk(""), HasSubstr("HTTP/1.1 503"));
}

class HttpTlsTimeoutTest : public HttpServerTest {
 protected:
  void SetUp() override {
    Start({.read_timeout = absl::Milliseconds(300), .tls = MakeTestCertificate()});
  }
};

TEST_F(HttpTlsTimeoutTest, AHandshakeThatNeverEndsIsCutOff) {
  RawClient client(server_->port());
  client.Send("\x16\x03\x01");
  ASSERT_TRUE(WaitForConnections(1));
  EXPECT_TRUE(WaitForConnections(0));
}

TEST(ConfigureTlsTest, RefusesWhatIsNotPem) {
  asio::ssl::context context(asio::ssl::context::tls_server);
  const absl::Status status = ConfigureTls({.certificate = "x", .key = "y"}, &context);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--tls-cert, --tls-key: "));
}

}  // namespace
}  // namespace nsa
