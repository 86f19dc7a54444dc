#pragma once
// text_completion: a stream's chunks have the same shape as the whole response.

#include <map>
#include <span>
#include <string>
#include <vector>

#include "server/http/logprobs_json.h"
#include "server/http/response_shape.h"

namespace nsa {

class CompletionShape final : public ResponseShape {
 public:
  using ResponseShape::ResponseShape;
  std::vector<std::string> Chunks(int64_t choice, const GenerateEvent& delta) override;

 protected:
  const char* BodyObject() const override { return "text_completion"; }
  const char* ChunkObject() const override { return "text_completion"; }
  Json ChoiceOf(int64_t index, const CollectedChoice& choice) const override;
  Json LogprobsOf(std::span<const TokenLogprob> logprobs, TextPosition* position) const override;

 private:
  std::map<int64_t, TextPosition> positions_;  // of the choices being streamed
};

}  // namespace nsa
