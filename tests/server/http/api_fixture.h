#pragma once
// ApiTest: the whole server over real sockets, on a fake model whose continuation is a hash of the
// prompt. Steps can be held or failed.

#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "nlohmann/json.hpp"
#include "server/generation_service.h"
#include "server/http/endpoints.h"
#include "server/http/http_server.h"
#include "server/metrics/metrics.h"
#include "tests/server/http/raw_client.h"
#include "tests/server/http/word_tokenizer.h"
#include "tests/support/fake_executor.h"

namespace nsa {

class ApiTest : public ::testing::Test {
 protected:
  static constexpr int64_t kPageTokens = 16, kNumPages = 64, kMaxModelTokens = 512;

  ApiTest();
  ~ApiTest() override;

  // Starts engine and server; the fixture's options may be changed before.
  void Start();

  virtual std::unique_ptr<GenerationService> MakeService(
      GenerationService::Dependencies dependencies) {
    return std::make_unique<GenerationService>(std::move(dependencies));
  }

  // Steps wait while held; a failing step ends the sequences of its batch.
  void HoldSteps(bool held);
  void FailSteps(bool failing);
  void SleepPerStep(absl::Duration pause);

  // True once the engine has no request and every page is free.
  bool WaitUntilIdle();
  bool WaitForStats(const std::function<bool(const EngineStats&)>& is_met);

  RawResponse Post(const std::string& path, const std::string& body) {
    return Fetch(port(), PostJson(path, body));
  }
  int port() const { return server_->port(); }

  // What the fake model makes of a prompt, as the text of a response that ignores no EOS.
  std::string Expected(const std::vector<int32_t>& prompt, int64_t max_tokens, uint64_t seed);

  EngineOptions engine_options_;
  absl::Duration liveness_timeout_ = absl::Seconds(30);
  int64_t max_whole_answer_bytes_ = int64_t{1} << 30;
  ConstraintQueueOptions constraint_options_;
  HttpOptions http_options_;
  ExecutorLimits limits_;
  WordTokenizer tokenizer_;
  std::unique_ptr<ChatTemplate> chat_template_;
  std::unique_ptr<FakeExecutor> executor_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<ConstraintQueue> constraints_;
  std::unique_ptr<GenerationService> service_;
  std::unique_ptr<Metrics> metrics_;
  ApiContext api_;
  std::unique_ptr<HttpServer> server_;

 private:
  absl::Status OnStep();

  std::mutex mutex_;  // guards the rest
  std::condition_variable released_;
  bool held_ = false;
  bool failing_ = false;
  absl::Duration pause_;
};

// The JSON of a response; discarded (is_discarded()) if it is none.
nlohmann::json JsonOf(const RawResponse& response);

// "status type code param" of an error response.
std::string ErrorOf(const RawResponse& response);

// The data of each event of a stream, in order; comments are dropped. Fails the test if a frame is
// not exactly "data: ...\n\n" or ": ...\n\n".
std::vector<std::string> EventsOf(const std::string& body);

}  // namespace nsa
