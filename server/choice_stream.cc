#include "server/choice_stream.h"

#include <cmath>
#include <utility>

#include "base/check.h"

namespace nsa {

ChoiceStream::ChoiceStream(const Options& options)
    : options_(options),
      detokenizer_(options.tokenizer, options.at_text_start),
      stop_matcher_(options.stop, options.stop_text) {}

GenerateEvent ChoiceStream::Push(const TokenEvent& event) {
  NSA_CHECK(event.has_token && !finished_);
  ++num_tokens_;
  const bool hides_text = event.finish == FinishReason::kStop && !event.completes_answer &&
                          options_.stop_text == StopText::kCut;
  const int64_t text_begin = num_text_bytes_;
  std::string text = hides_text ? std::string() : detokenizer_.Push(event.token);
  // Bytes that still wait will become at least one byte of text.
  int64_t text_end =
      text_begin + static_cast<int64_t>(text.size()) + (detokenizer_.has_pending() ? 1 : 0);
  if (event.finish != FinishReason::kNone) text += detokenizer_.Finish();
  num_text_bytes_ += static_cast<int64_t>(text.size());
  WaitingToken waiting{.token = event.token, .text_begin = text_begin, .text_end = text_end};
  if (options_.wants_logprobs) {
    waiting.logprob =
        MakeLogprob(*options_.tokenizer, event.token, event.logprob, event.top_logprobs);
  }
  waiting.trace = event.trace;
  waiting_.push_back(std::move(waiting));

  GenerateEvent delta;
  delta.trace_shape = options_.trace_shape;
  delta.finish = event.finish;
  delta.text = stop_matcher_.Push(text);
  if (stop_matcher_.hit()) {
    delta.finish = FinishReason::kStop;
  } else if (event.finish != FinishReason::kNone) {
    delta.text += stop_matcher_.Finish();
  }
  num_released_bytes_ += static_cast<int64_t>(delta.text.size());
  finished_ = delta.finish != FinishReason::kNone;
  ReleaseTokens(&delta);
  return delta;
}

void ChoiceStream::ReleaseTokens(GenerateEvent* delta) {
  const auto is_released = [&](const WaitingToken& token) {
    if (stop_matcher_.hit()) return token.text_begin < num_released_bytes_;
    return finished_ || token.text_end <= num_released_bytes_;
  };
  while (!waiting_.empty() && is_released(waiting_.front())) {
    WaitingToken& token = waiting_.front();
    delta->tokens.push_back(token.token);
    if (options_.wants_logprobs) delta->logprobs.push_back(std::move(token.logprob));
    if (options_.trace_shape != nullptr) delta->traces.push_back(std::move(token.trace));
    waiting_.pop_front();
  }
}

TokenLogprob MakeLogprob(const Tokenizer& tokenizer, int32_t token, double logprob,
                         const std::vector<TopLogprob>& top_logprobs) {
  const auto finite = [](double value) {
    return std::isfinite(value) ? value : kImpossibleLogprob;
  };
  TokenLogprob result{
      .token = token, .bytes = tokenizer.TokenBytes(token), .logprob = finite(logprob), .top = {}};
  for (const TopLogprob& top : top_logprobs) {
    result.top.push_back({.token = top.token,
                          .bytes = tokenizer.TokenBytes(top.token),
                          .logprob = finite(top.logprob)});
  }
  return result;
}

}  // namespace nsa
