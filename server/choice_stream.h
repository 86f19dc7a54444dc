#pragma once
// ChoiceStream: one continuation on its way from tokens to text. Detokenizes, applies stop strings
// and keeps tokens and log-probabilities in step with the text.

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/text/detokenizer.h"
#include "server/generation_service.h"
#include "server/stop_matcher.h"

namespace nsa {

// Stands for the log-probability of a token that cannot occur: JSON has no infinity.
inline constexpr double kImpossibleLogprob = -9999.0;

// A token's log-probability, finite in any case, with the bytes of all tokens in it.
TokenLogprob MakeLogprob(const Tokenizer& tokenizer, int32_t token, double logprob,
                         const std::vector<TopLogprob>& top_logprobs);

class ChoiceStream {
 public:
  struct Options {
    const Tokenizer* tokenizer = nullptr;
    bool at_text_start = false;  // nothing of the prompt is text: see IncrementalDetokenizer
    bool wants_logprobs = false;
    std::shared_ptr<const TraceShape> trace_shape;  // null: no traces
    std::vector<std::string> stop;
    StopText stop_text = StopText::kCut;  // also for the text of a stop token
  };
  explicit ChoiceStream(const Options& options);

  // Takes an event with a token and returns what it makes certain, as a delta without its choice.
  // A token is released once all of its text is; tokens that lie behind a stop string's cut are
  // dropped. `finish` is kStop at a stop string, else the event's. Not to be called after a finish.
  GenerateEvent Push(const TokenEvent& event);

  // Tokens taken so far, the dropped ones included.
  int64_t num_tokens() const { return num_tokens_; }
  bool finished() const { return finished_; }

 private:
  struct WaitingToken {
    int32_t token;
    TokenLogprob logprob;
    std::shared_ptr<const TokenTrace> trace;
    int64_t text_begin;  // bytes of the choice's text before the token
    int64_t text_end;    // bytes that must be released before it
  };
  void ReleaseTokens(GenerateEvent* delta);

  const Options options_;
  IncrementalDetokenizer detokenizer_;
  StopMatcher stop_matcher_;
  std::deque<WaitingToken> waiting_;
  int64_t num_tokens_ = 0;
  int64_t num_text_bytes_ = 0;      // detokenized
  int64_t num_released_bytes_ = 0;  // past the stop matcher
  bool finished_ = false;
};

}  // namespace nsa
