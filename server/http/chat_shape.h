#pragma once
// chat.completion and chat.completion.chunk. Per choice: a first chunk with the role, chunks with
// content, and one with finish_reason and an empty delta.

#include <set>
#include <span>
#include <string>
#include <vector>

#include "server/http/response_shape.h"

namespace nsa {

class ChatShape final : public ResponseShape {
 public:
  using ResponseShape::ResponseShape;
  std::vector<std::string> Chunks(int64_t choice, const GenerateEvent& delta) override;

 protected:
  const char* BodyObject() const override { return "chat.completion"; }
  const char* ChunkObject() const override { return "chat.completion.chunk"; }
  Json ChoiceOf(int64_t index, const CollectedChoice& choice) const override;
  Json LogprobsOf(std::span<const TokenLogprob> logprobs, TextPosition* position) const override;

 private:
  std::set<int64_t> started_;  // choices whose role has been sent
};

}  // namespace nsa
