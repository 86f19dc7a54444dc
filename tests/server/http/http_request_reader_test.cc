#include "server/http/http_request_reader.h"

#include <gtest/gtest.h>

#include <cctype>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace nsa {
namespace {

using State = HttpRequestReader::State;

constexpr size_t kMaxHeaderBytes = 512;
constexpr size_t kMaxBodyBytes = 100;

HttpRequestReader MakeReader() {
  return HttpRequestReader({.max_header_bytes = kMaxHeaderBytes, .max_body_bytes = kMaxBodyBytes});
}

// The status that the bytes are refused with; 0: they make a request; -1: they are incomplete.
int RefusalOf(const std::string& bytes) {
  HttpRequestReader reader = MakeReader();
  reader.Append(bytes);
  switch (reader.Parse()) {
    case State::kError:
      return reader.error().status;
    case State::kReady:
      return 0;
    default:
      return -1;
  }
}

std::string Post(const std::string& headers, const std::string& body) {
  return "POST /x HTTP/1.1\r\nHost: h\r\n" + headers + "\r\n" + body;
}

TEST(HttpRequestReader, ReadsAWholeRequest) {
  HttpRequestReader reader = MakeReader();
  EXPECT_TRUE(reader.empty());
  reader.Append("POST /a%20b?q=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX-A: v\r\n\r\nabc");
  EXPECT_FALSE(reader.empty());
  ASSERT_EQ(reader.Parse(), State::kReady);
  const HttpRequest request = reader.Take();
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.path, "/a b");
  EXPECT_EQ(request.query, "q=1");
  EXPECT_EQ(request.body, "abc");
  EXPECT_EQ(*request.Header("x-a"), "v");
  EXPECT_TRUE(reader.keep_alive());
  EXPECT_FALSE(reader.http_1_0());
  EXPECT_TRUE(reader.empty());
}

TEST(HttpRequestReader, ReadsByteByByte) {
  const std::string bytes =
      Post("Transfer-Encoding: chunked\r\n", "3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n");
  HttpRequestReader reader = MakeReader();
  for (size_t i = 0; i + 1 < bytes.size(); ++i) {
    reader.Append(bytes.substr(i, 1));
    ASSERT_EQ(reader.Parse(), State::kNeedMore) << i;
  }
  reader.Append(bytes.substr(bytes.size() - 1));
  ASSERT_EQ(reader.Parse(), State::kReady);
  EXPECT_EQ(reader.Take().body, "abcde");
}

TEST(HttpRequestReader, ReadsAnEmptyChunkedBodyByteByByte) {
  HttpRequestReader reader = MakeReader();
  reader.Append(Post("Transfer-Encoding: chunked\r\n", "0\r\n"));
  ASSERT_EQ(reader.Parse(), State::kNeedMore);
  reader.Append("\r");
  ASSERT_EQ(reader.Parse(), State::kNeedMore);
  reader.Append("\n");
  ASSERT_EQ(reader.Parse(), State::kReady);
  EXPECT_EQ(reader.Take().body, "");
}

TEST(HttpRequestReader, LeavesPipelinedBytesForTheNextRequest) {
  HttpRequestReader reader = MakeReader();
  reader.Append(Post("Content-Length: 1\r\n", "a") + "\r\n" + Post("Content-Length: 1\r\n", "b") +
                "GET");
  ASSERT_EQ(reader.Parse(), State::kReady);
  EXPECT_EQ(reader.Take().body, "a");
  ASSERT_EQ(reader.Parse(), State::kReady);
  EXPECT_EQ(reader.Take().body, "b");
  EXPECT_EQ(reader.Parse(), State::kNeedMore);
  EXPECT_EQ(reader.buffered_bytes(), 3U);
}

TEST(HttpRequestReader, KeepAliveFollowsVersionAndHeader) {
  const auto keeps = [](const std::string& version, const std::string& header) {
    HttpRequestReader reader = MakeReader();
    reader.Append("GET / HTTP/" + version + "\r\nHost: h\r\n" + header + "\r\n");
    EXPECT_EQ(reader.Parse(), State::kReady);
    return reader.keep_alive();
  };
  EXPECT_TRUE(keeps("1.1", ""));
  EXPECT_FALSE(keeps("1.1", "Connection: close\r\n"));
  EXPECT_FALSE(keeps("1.0", ""));
  EXPECT_TRUE(keeps("1.0", "Connection: keep-alive\r\n"));
}

TEST(HttpRequestReader, LimitsTheHead) {
  const std::string frame = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n";
  const auto with_size = [&](size_t num_bytes) {
    std::string head = frame;
    return head.insert(head.size() - 4, num_bytes - frame.size(), 'x');
  };
  ASSERT_EQ(with_size(kMaxHeaderBytes).size(), kMaxHeaderBytes);
  EXPECT_EQ(RefusalOf(with_size(kMaxHeaderBytes - 1)), 0);
  EXPECT_EQ(RefusalOf(with_size(kMaxHeaderBytes)), 0);
  EXPECT_EQ(RefusalOf(with_size(kMaxHeaderBytes + 1)), 431);
  // A head that never ends, and one whose body came along.
  EXPECT_EQ(RefusalOf(std::string(kMaxHeaderBytes + 1, 'x')), 431);
  EXPECT_EQ(RefusalOf(std::string(kMaxHeaderBytes, 'x')), -1);
  EXPECT_EQ(RefusalOf(frame + std::string(kMaxHeaderBytes, 'x')), 0);
}

TEST(HttpRequestReader, LimitsTheRequestLine) {
  const auto with_target = [](size_t num_bytes) {
    return absl::StrCat("GET /", std::string(num_bytes - 27, 'p'), " HTTP/1.1\r\nHost: h\r\n\r\n");
  };
  ASSERT_EQ(with_target(kMaxHeaderBytes).size(), kMaxHeaderBytes);
  EXPECT_EQ(RefusalOf(with_target(kMaxHeaderBytes - 1)), 0);
  EXPECT_EQ(RefusalOf(with_target(kMaxHeaderBytes)), 0);
  EXPECT_EQ(RefusalOf(with_target(kMaxHeaderBytes + 1)), 431);
}

TEST(HttpRequestReader, LimitsTheNumberOfHeaders) {
  const auto refusal_of = [](size_t num_headers) {
    std::string head = "GET / HTTP/1.1\r\nHost: h\r\n";
    for (size_t i = 1; i < num_headers; ++i) head += "a:\r\n";
    HttpRequestReader reader({.max_header_bytes = 4096, .max_headers = 5});
    reader.Append(head + "\r\n");
    return reader.Parse() == State::kError ? reader.error().status : 0;
  };
  EXPECT_EQ(refusal_of(4), 0);
  EXPECT_EQ(refusal_of(5), 0);
  EXPECT_EQ(refusal_of(6), 431);
  EXPECT_EQ(HttpRequestReader::Limits().max_headers, 128U);
}

TEST(HttpRequestReader, LimitsTheBody) {
  const auto sized = [](size_t n) {
    return Post("Content-Length: " + std::to_string(n) + "\r\n", std::string(n, 'x'));
  };
  EXPECT_EQ(RefusalOf(sized(kMaxBodyBytes - 1)), 0);
  EXPECT_EQ(RefusalOf(sized(kMaxBodyBytes)), 0);
  EXPECT_EQ(RefusalOf(sized(kMaxBodyBytes + 1)), 413);
  const auto chunked = [](size_t first, size_t second) {
    char sizes[32];
    std::string body;
    for (const size_t n : {first, second}) {
      snprintf(sizes, sizeof(sizes), "%zx\r\n", n);
      body += sizes + std::string(n, 'x') + "\r\n";
    }
    return Post("Transfer-Encoding: chunked\r\n", body + "0\r\n\r\n");
  };
  EXPECT_EQ(RefusalOf(chunked(kMaxBodyBytes - 10, 10)), 0);
  EXPECT_EQ(RefusalOf(chunked(kMaxBodyBytes - 10, 11)), 413);
  EXPECT_EQ(RefusalOf(Post("Content-Length: 18446744073709551615\r\n", "")), 413);
}

TEST(HttpRequestReader, LimitsChunkHeadersAndTrailers) {
  const std::string extension(kMaxHeaderBytes + 10, 'e');
  EXPECT_EQ(RefusalOf(Post("Transfer-Encoding: chunked\r\n", "1;" + extension)), 431);
  EXPECT_EQ(RefusalOf(Post("Transfer-Encoding: chunked\r\n", "0\r\nT: " + extension)), 431);
}

TEST(HttpRequestReader, RefusesWhatIsAmbiguous) {
  EXPECT_EQ(RefusalOf(Post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "x")), 400);
  EXPECT_EQ(RefusalOf(Post("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", "x")), 400);
  EXPECT_EQ(RefusalOf(Post("Content-Length: 1\r\nContent-Length: 2\r\n", "xx")), 400);
  EXPECT_EQ(RefusalOf(Post("Content-Length: 1\r\nContent-Length: 1\r\n", "x")), 400);
  EXPECT_EQ(RefusalOf(Post("Content-Length: 1, 1\r\n", "x")), 400);
  EXPECT_EQ(RefusalOf(Post("Content-Length: +1\r\n", "x")), 400);
  EXPECT_EQ(RefusalOf(Post("Content-Length: 0x1\r\n", "x")), 400);
  EXPECT_EQ(RefusalOf(Post("Content-Length:\r\n", "x")), 400);
  EXPECT_EQ(RefusalOf(Post("Content-Length: 18446744073709551617\r\n", "x")), 400);
  EXPECT_EQ(RefusalOf(Post("Content-Length: -1\r\n", "")), 400);
  EXPECT_EQ(RefusalOf(Post("Content-Length: 1x\r\n", "x")), 400);
  EXPECT_EQ(RefusalOf(Post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")), 501);
  EXPECT_EQ(RefusalOf(Post("Transfer-Encoding: gzip\r\n", "")), 501);
  EXPECT_EQ(RefusalOf(Post("Transfer-Encoding: chunked, gzip\r\n", "")), 501);
  EXPECT_EQ(
      RefusalOf(Post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
      400);
  EXPECT_EQ(RefusalOf(Post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")), 501);
  EXPECT_EQ(RefusalOf(Post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")), 400);
  EXPECT_EQ(RefusalOf(Post("Transfer-Encoding: \x0b"
                           "chunked\r\n",
                           "0\r\n\r\n")),
            400);
  EXPECT_EQ(RefusalOf("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(RefusalOf(Post("Host: second\r\n", "")), 400);
}

TEST(HttpRequestReader, RefusesWhatIsMalformed) {
  for (const char* bytes :
       {"GET / HTTP/1.1\r\n\r\n",                          // no Host
        "GET / HTTP/2.0\r\nHost: h\r\n\r\n",               // version
        "GET /\r\n\r\n",                                   // HTTP/0.9
        "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",              // two spaces
        "GET / HTTP/1.1\nHost: h\n\n",                     // bare LF
        "GET / HTTP/1.1\r\nHost: h\r\nNo colon\r\n\r\n",   // not a header
        "GET / HTTP/1.1\r\nHost: h\r\nName : v\r\n\r\n",   // space before the colon
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\001b\r\n\r\n",  // control character
        "GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n",            // bad escape
        "G@T / HTTP/1.1\r\nHost: h\r\n\r\n",               // not a method
        "\x16\x03\x01\x02\x01\r\n\r\n"}) {                 // TLS
    EXPECT_EQ(RefusalOf(bytes), 400) << bytes;
  }
}

TEST(HttpRequestReader, RefusesFoldedLinesAndControlCharacters) {
  const std::string folded[] = {"X: a\r\n b\r\n", "X: a\r\n\tb\r\n",
                                "Transfer-Encoding:\r\n chunked\r\n", " X: a\r\n"};
  for (const std::string& header : folded) EXPECT_EQ(RefusalOf(Post(header, "")), 400) << header;
  for (int c = 0; c < 256; ++c) {
    const std::string in_value =
        Post(absl::StrCat("X: a", std::string(1, static_cast<char>(c)), "b\r\n"), "");
    const bool is_control = (c < 32 && c != '\t') || c == 127;
    EXPECT_EQ(RefusalOf(in_value), is_control ? 400 : 0) << c;
    const std::string in_name =
        Post(absl::StrCat("X", std::string(1, static_cast<char>(c)), "y: a\r\n"), "");
    EXPECT_EQ(RefusalOf(in_name) == 0, c == ':' || (c < 127 && isalnum(c) != 0) ||
                                           (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != nullptr))
        << c;
  }
}

TEST(HttpRequestReader, RefusesMalformedChunks) {
  for (const char* body :
       {"zz\r\n", "1\r\nabc\r\n0\r\n\r\n", "-1\r\n", "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n", " 1\r\na\r\n0\r\n\r\n", "1\na\r\n0\r\n\r\n", "1\r\na\n0\r\n\r\n",
        "\r\n", "10000000000000001\r\na\r\n0\r\n\r\n", "1;x\x01=y\r\na\r\n0\r\n\r\n"}) {
    EXPECT_EQ(RefusalOf(Post("Transfer-Encoding: chunked\r\n", body)), 400) << body;
  }
  EXPECT_EQ(RefusalOf(Post("Transfer-Encoding: chunked\r\n", "ffffffffffffffff\r\n")), 413);
}

// Whether a body is read at all: asked once, about a head whose body is still to come.
TEST(HttpRequestReader, SkipsABodyThatIsNotNeeded) {
  int num_asked = 0;
  bool is_needed = false;
  const auto make = [&] {
    return HttpRequestReader({.max_header_bytes = kMaxHeaderBytes, .max_body_bytes = kMaxBodyBytes},
                             [&](const HttpRequest& head) {
                               ++num_asked;
                               EXPECT_EQ(head.path, "/x");
                               EXPECT_NE(head.Header("Host"), nullptr);
                               return is_needed;
                             });
  };
  for (const char* headers : {"Content-Length: 50\r\n", "Transfer-Encoding: chunked\r\n",
                              "Content-Length: 50\r\nExpect: 100-continue\r\n"}) {
    HttpRequestReader reader = make();
    reader.Append(Post(headers, ""));
    ASSERT_EQ(reader.Parse(), State::kReady) << headers;
    EXPECT_FALSE(reader.keep_alive());
    EXPECT_EQ(reader.Take().body, "");
  }
  EXPECT_EQ(num_asked, 3);
  HttpRequestReader without = make();
  without.Append(Post("", ""));
  ASSERT_EQ(without.Parse(), State::kReady);
  EXPECT_TRUE(without.keep_alive());
  EXPECT_EQ(num_asked, 3);
  is_needed = true;
  HttpRequestReader reader = make();
  reader.Append(Post("Content-Length: 2\r\n", "a"));
  ASSERT_EQ(reader.Parse(), State::kNeedMore);
  EXPECT_EQ(reader.body_bytes(), 1U);
  reader.Append("b");
  ASSERT_EQ(reader.Parse(), State::kReady);
  EXPECT_EQ(reader.Take().body, "ab");
  EXPECT_EQ(num_asked, 4);
}

TEST(HttpRequestReader, KnowsTheLinesOfAHeadThatIsNotComplete) {
  HttpRequestReader reader = MakeReader();
  reader.Append("GET / HTTP/1.1\r\nOrigin: \t https://a.b \r\nX: \x01\r\nnothing\r\nHost: cu");
  ASSERT_EQ(reader.Parse(), State::kNeedMore);
  ASSERT_EQ(reader.head().headers.size(), 0U);  // \t is not visible: the line is not taken
  HttpRequestReader plain = MakeReader();
  plain.Append("GET / HTTP/1.1\r\nOrigin:  https://a.b \r\nX: \x01\r\nnothing\r\nHost: cu");
  ASSERT_EQ(plain.Parse(), State::kNeedMore);
  ASSERT_EQ(plain.head().headers.size(), 1U);
  EXPECT_EQ(*plain.head().Header("origin"), "https://a.b");
}

TEST(HttpRequestReader, NothingCanBeReadAfterAnError) {
  HttpRequestReader reader = MakeReader();
  reader.Append("garbage\r\n\r\n");
  EXPECT_EQ(reader.Parse(), State::kError);
  reader.Append("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(reader.Parse(), State::kError);
  EXPECT_FALSE(reader.keep_alive());
}

TEST(HttpRequestReader, TellsOnceOfAnExpectedContinue) {
  HttpRequestReader reader = MakeReader();
  reader.Append(Post("Content-Length: 2\r\nExpect: 100-Continue\r\n", ""));
  EXPECT_EQ(reader.Parse(), State::kContinueExpected);
  EXPECT_EQ(reader.Parse(), State::kNeedMore);
  reader.Append("ab");
  ASSERT_EQ(reader.Parse(), State::kReady);
  EXPECT_EQ(reader.Take().body, "ab");
  // The body is here already, or refused: nothing to wait for.
  EXPECT_EQ(RefusalOf(Post("Content-Length: 1\r\nExpect: 100-continue\r\n", "a")), 0);
  EXPECT_EQ(RefusalOf(Post("Content-Length: 999\r\nExpect: 100-continue\r\n", "")), 413);
  EXPECT_EQ(RefusalOf(Post("Content-Length: 1\r\nExpect: tea\r\n", "")), 417);
}

TEST(HttpRequestReader, TakesTheClientsRequestIdIfAcceptable) {
  const auto id_for = [](const std::string& header) {
    HttpRequestReader reader = MakeReader();
    reader.Append("GET / HTTP/1.1\r\nHost: h\r\n" + header + "\r\n");
    EXPECT_EQ(reader.Parse(), State::kReady);
    return reader.Take().request_id;
  };
  EXPECT_EQ(id_for("X-Request-ID: abc.1\r\n"), "abc.1");
  EXPECT_EQ(id_for("X-Request-ID: a b\r\n").substr(0, 4), "req-");
  EXPECT_EQ(id_for("").substr(0, 4), "req-");
}

TEST(HttpRequestReader, AnErrorDoesNotInheritTheLastRequestsId) {
  HttpRequestReader reader = MakeReader();
  reader.Append("HEAD / HTTP/1.1\r\nHost: h\r\nx-request-id: first\r\n\r\ngarbage\r\n\r\n");
  ASSERT_EQ(reader.Parse(), State::kReady);
  EXPECT_EQ(reader.Take().request_id, "first");
  EXPECT_TRUE(reader.is_head());
  ASSERT_EQ(reader.Parse(), State::kError);
  EXPECT_NE(reader.request_id(), "first");
  EXPECT_FALSE(reader.is_head());
}

}  // namespace
}  // namespace nsa
