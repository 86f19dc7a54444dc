#pragma once
// GenerationService::Call: one running call. Sits between the engine, which knows requests and
// tokens, and the observer, which knows choices and text.

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "server/choice_stream.h"
#include "server/generation_service.h"

namespace nsa {

class GenerationService::Call : public TokenSink {
 public:
  struct Options {
    Engine* engine = nullptr;
    RequestId first_request_id = 0;  // choice i is request first_request_id + i
    int64_t num_choices = 1;
    int64_t num_prompt_tokens = 0;
    std::vector<int32_t> echoed_prompt;  // empty: no echo
    std::string echoed_text;             // of it
    std::string constraint_field;        // that the call's constraint came from; empty: none
    ChoiceStream::Options choice;
  };
  Call(const Options& options, std::shared_ptr<GenerateObserver> observer);

  // On the engine's thread, from here on all of it.
  FinishReason Take(const TokenEvent& event) override;
  void OnToken(const TokenEvent& event) override;

  // From any thread.
  void Cancel();
  int64_t num_prompt_tokens() const { return options_.num_prompt_tokens; }

 private:
  struct Choice {
    ChoiceStream stream;
    std::deque<GenerateEvent> deltas;           // of events that are taken; OnToken tells of them
    FinishReason finish = FinishReason::kNone;  // as its deltas say
    bool told_end = false;
    KvTraffic traffic;
    int64_t num_prompt_tokens_shared = 0;
    RequestTimes times;
    std::vector<TokenLogprob> prompt_logprobs;  // until the echo is out
    bool echoed = false;
  };

  void Echo(int64_t choice_idx);
  void TakeToken(int64_t choice_idx, const TokenEvent& event);
  void ReportProgress(int64_t choice_idx, const TokenEvent& event);
  // The last event: cancels what still runs.
  void Fail(absl::Status error);
  void Finish();
  void CancelRequests();
  absl::Status StatusOf(const TokenEvent& event) const;
  Usage MakeUsage() const;

  const Options options_;
  std::atomic<bool> cancelled_{false};
  // Engine thread only.
  std::shared_ptr<GenerateObserver> observer_;  // null once the last event is out
  std::vector<Choice> choices_;
  int64_t num_open_choices_;
};

}  // namespace nsa
