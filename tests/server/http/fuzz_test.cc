// Mutated requests and bodies, from a fixed seed: never a crash, always a proper answer.

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "server/error_detail.h"
#include "server/http/http_request_reader.h"
#include "server/http/openai_types.h"

namespace nsa {
namespace {

using State = HttpRequestReader::State;

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}
  size_t Below(size_t limit) { return random_() % limit; }
  std::string Mutate(std::string text) {
    for (size_t i = Below(4) + 1; i > 0 && !text.empty(); --i) {
      const size_t at = Below(text.size());
      switch (Below(5)) {
        case 0:
          text[at] = static_cast<char>(Below(256));
          break;
        case 1:
          text.erase(at, Below(8) + 1);
          break;
        case 2:
          text.insert(at, 1, static_cast<char>(Below(256)));
          break;
        case 3:
          text.insert(at, text.substr(Below(text.size()), Below(20)));
          break;
        default:
          text.insert(at, kPieces[Below(std::size(kPieces))]);
          break;
      }
    }
    return text;
  }

 private:
  static constexpr const char* kPieces[] = {"\r\n",
                                            "\n",
                                            "\r\n\r\n",
                                            "Content-Length: 7\r\n",
                                            "Transfer-Encoding: chunked\r\n",
                                            "0\r\n",
                                            "ffffffffffffffff\r\n",
                                            "{",
                                            "}",
                                            "[",
                                            "]",
                                            "\"",
                                            "null",
                                            "-1",
                                            "1e400",
                                            "\\ud800",
                                            ":",
                                            ","};
  std::mt19937_64 random_;
};

// All requests of a stream of bytes that arrives in pieces, and the refusal that ended it.
std::string ReadAll(const std::string& bytes, Mutator* cuts) {
  HttpRequestReader reader({.max_header_bytes = 1024, .max_body_bytes = 1024});
  std::string seen;
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t num_bytes = std::min(bytes.size() - begin, cuts->Below(40) + 1);
    reader.Append(bytes.substr(begin, num_bytes));
    begin += num_bytes;
    State state = reader.Parse();
    while (state == State::kReady) {
      const HttpRequest request = reader.Take();
      seen += request.method + " " + request.path + " " + request.body + "|";
      state = reader.Parse();
    }
    if (state == State::kError) return seen + std::to_string(reader.error().status);
  }
  return seen;
}

TEST(Fuzz, RequestsReadTheSameHoweverTheyAreCut) {
  const std::string requests =
      "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
      "POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
      "chunked\r\n\r\n4\r\nwiki\r\n2;a=b\r\nab\r\n"
      "0\r\nT: x\r\n\r\n"
      "GET /c?d=e HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n";
  Mutator mutator(1);
  EXPECT_EQ(ReadAll(requests, &mutator), "POST /a hello|POST /b wikiab|GET /c |");
  std::set<std::string> outcomes;
  for (int i = 0; i < 20000; ++i) {
    const std::string mutated = mutator.Mutate(requests);
    const std::string once = ReadAll(mutated, &mutator);
    outcomes.insert(once);
    ASSERT_EQ(ReadAll(mutated, &mutator), once) << mutated;
  }
  EXPECT_GT(outcomes.size(), 100U);
}

TEST(Fuzz, BodiesAreParsedOrRefusedWithACode) {
  const std::string completion =
      R"({"model":"m","prompt":["a",[1,2]],"max_tokens":5,"temperature":0.5,"stop":["x"],"n":2,)"
      R"("stream":true,"stream_options":{"include_usage":true},"logit_bias":{},"seed":3})";
  const std::string chat =
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"é"}]}],"logprobs":true,)"
      R"("top_logprobs":3,"response_format":{"type":"text"},"tools":[],"timeout":1.5})";
  Mutator mutator(2);
  int num_accepted = 0, num_refused = 0;
  for (int i = 0; i < 20000; ++i) {
    const auto parsed = i % 2 == 0 ? ParseCompletionRequest(mutator.Mutate(completion))
                                   : ParseChatRequest(mutator.Mutate(chat));
    if (parsed.ok()) {
      ++num_accepted;
      EXPECT_FALSE(parsed->calls.empty());
    } else {
      ++num_refused;
      EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_FALSE(GetDetail(parsed.status()).code.empty());
    }
  }
  EXPECT_GT(num_accepted, 100);
  EXPECT_GT(num_refused, 1000);
}

}  // namespace
}  // namespace nsa
