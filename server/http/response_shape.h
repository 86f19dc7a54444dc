#pragma once
// The JSON of a generation's response, whole or in chunks. One implementation per endpoint.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/generation_service.h"

namespace nsa {

// What all chunks of a response share.
struct ResponseMeta {
  std::string id;
  int64_t created = 0;  // Unix seconds
  std::string model;
  std::string fingerprint;
  bool with_logprobs = false;
  bool include_usage = false;  // in a stream
};

// A choice that has been collected whole.
struct FinishedChoice {
  std::string text;
  std::vector<TokenLogprob> logprobs;
  FinishReason finish = FinishReason::kNone;
};

class ResponseShape {
 public:
  explicit ResponseShape(ResponseMeta meta) : meta_(std::move(meta)) {}
  virtual ~ResponseShape() = default;

  const ResponseMeta& meta() const { return meta_; }

  // Streaming: the chunks (JSON texts) that a kDelta event of this choice makes, in order; none if
  // it brings nothing that a client can see.
  virtual std::vector<std::string> Chunks(int64_t choice, const GenerateEvent& delta) = 0;
  // Streaming, with include_usage: the chunk after the last choice.
  std::string UsageChunk(const Usage& usage) const;
  // The whole response.
  std::string Body(const std::vector<FinishedChoice>& choices, const Usage& usage) const;

 protected:
  using Json = nlohmann::ordered_json;

  virtual const char* BodyObject() const = 0;
  virtual const char* ChunkObject() const = 0;
  virtual Json ChoiceOf(int64_t index, const FinishedChoice& choice) const = 0;

  // A chunk around one choice.
  std::string Chunk(const Json& choice);

 private:
  Json Envelope(const char* object) const;

  const ResponseMeta meta_;
  // Of a chunk, what stands before and behind its one choice: the same in every chunk. Empty before
  // the first one.
  std::string chunk_head_, chunk_tail_;
};

// "stop", "length", or null while a choice is running.
nlohmann::ordered_json FinishReasonJson(FinishReason finish);

// JSON text in one line; bytes that are not UTF-8 become U+FFFD.
std::string DumpJson(const nlohmann::ordered_json& value);

}  // namespace nsa
