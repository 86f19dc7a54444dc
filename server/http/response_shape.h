#pragma once
// The JSON of a generation's response, whole or in chunks. One implementation per endpoint.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/generation_service.h"
#include "server/http/logprobs_json.h"

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

// Objects whose members are arrays, joined array by array, as text: as values they would take ten
// times the room.
class JoinedArrays {
 public:
  // All of them have the same members; one that is no array stays as it was first.
  void Append(const nlohmann::ordered_json& object);
  std::string Text() const;  // of the whole object
  int64_t num_bytes() const { return num_bytes_; }

 private:
  struct Member {
    std::string name;  // with its quotes
    std::string text;  // without the brackets of an array
    bool is_array = false;
  };
  std::vector<Member> members_;
  int64_t num_bytes_ = 0;
};

// A choice as it is collected whole.
struct CollectedChoice {
  std::string text;
  JoinedArrays logprobs;
  TextPosition position;  // of the next token
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
  // Whole: adds what a kDelta event brings to its choice, and the bytes that it has grown by to
  // `num_bytes`; then the response.
  void Collect(const GenerateEvent& delta, CollectedChoice* choice, int64_t* num_bytes) const;
  std::string Body(std::vector<CollectedChoice> choices, const Usage& usage) const;

 protected:
  using Json = nlohmann::ordered_json;

  virtual const char* BodyObject() const = 0;
  virtual const char* ChunkObject() const = 0;
  // The member "logprobs" is null: what LogprobsOf gave is put there.
  virtual Json ChoiceOf(int64_t index, const CollectedChoice& choice) const = 0;
  virtual Json LogprobsOf(std::span<const TokenLogprob> logprobs, TextPosition* position) const = 0;

  // A chunk around one choice.
  std::string Chunk(const Json& choice);

 private:
  Json Envelope(const char* object) const;
  std::string ChoiceText(int64_t index, const CollectedChoice& choice) const;

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
