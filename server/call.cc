#include "server/call.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "server/error_detail.h"

namespace nsa {

GenerationService::Call::Call(const Options& options, std::shared_ptr<GenerateObserver> observer)
    : options_(options), observer_(std::move(observer)), num_open_choices_(options.num_choices) {
  for (int64_t i = 0; i < options.num_choices; ++i) {
    choices_.push_back(
        {.stream = ChoiceStream(options.choice), .echoed = options.echoed_prompt.empty()});
  }
}

// Its text decides how a choice has ended, and the engine counts that.
FinishReason GenerationService::Call::Take(const TokenEvent& event) {
  Choice& choice = choices_[event.id - options_.first_request_id];
  if (observer_ == nullptr) return event.finish;
  if (event.has_token && !choice.stream.finished()) {
    choice.deltas.push_back(choice.stream.Push(event));
    choice.finish = choice.deltas.back().finish;
  }
  const bool has_ended = event.finish != FinishReason::kNone && choice.stream.finished();
  return has_ended ? choice.finish : event.finish;
}

void GenerationService::Call::OnToken(const TokenEvent& event) {
  const auto choice_idx = static_cast<int64_t>(event.id - options_.first_request_id);
  Choice& choice = choices_[choice_idx];
  // The engine still tells of requests that this call has ended: at a stop string, or in Fail.
  if (observer_ == nullptr || choice.told_end) return;
  choice.traffic = event.traffic;
  choice.num_prompt_tokens_shared = event.num_prompt_tokens_shared;
  choice.times = event.times;
  for (const PromptScore& score : event.prompt_scores) {
    choice.prompt_logprobs.push_back(
        MakeLogprob(*options_.choice.tokenizer, score.token, score.logprob, score.top_logprobs));
  }
  if (event.has_token) {
    TakeToken(choice_idx, event);
  } else if (event.finish == FinishReason::kNone) {
    ReportProgress(choice_idx, event);
  } else {
    Fail(StatusOf(event));
  }
}

// The prompt as the first delta of a choice.
void GenerationService::Call::Echo(int64_t choice_idx) {
  Choice& choice = choices_[choice_idx];
  choice.echoed = true;
  const Tokenizer& tokenizer = *options_.choice.tokenizer;
  GenerateEvent delta{
      .choice = choice_idx, .text = options_.echoed_text, .tokens = options_.echoed_prompt};
  if (options_.choice.wants_logprobs) {
    const int32_t first = options_.echoed_prompt.front();
    delta.logprobs = std::exchange(choice.prompt_logprobs, {});
    delta.logprobs.insert(delta.logprobs.begin(),
                          {.token = first, .bytes = tokenizer.TokenBytes(first)});
  }
  observer_->OnEvent(std::move(delta));
}

void GenerationService::Call::TakeToken(int64_t choice_idx, const TokenEvent& event) {
  Choice& choice = choices_[choice_idx];
  if (!choice.echoed) Echo(choice_idx);
  GenerateEvent delta = std::move(choice.deltas.front());
  choice.deltas.pop_front();
  delta.choice = choice_idx;
  const bool is_finished = choice.told_end = delta.finish != FinishReason::kNone;
  if (is_finished && event.finish == FinishReason::kNone) {
    // At a stop string the engine would go on.
    options_.engine->Cancel(event.id, FinishReason::kStop);
    choice.times.finished = absl::Now();
  }
  if (is_finished || !delta.text.empty() || !delta.tokens.empty()) {
    observer_->OnEvent(std::move(delta));
  }
  if (is_finished && --num_open_choices_ == 0) Finish();
}

void GenerationService::Call::ReportProgress(int64_t choice_idx, const TokenEvent& event) {
  GenerateEvent progress{.kind = GenerateEvent::Kind::kProgress, .choice = choice_idx};
  progress.prompt_tokens_done = event.num_prompt_tokens_done;
  progress.prompt_tokens_total = options_.num_prompt_tokens;
  observer_->OnEvent(std::move(progress));
}

void GenerationService::Call::Fail(absl::Status error) {
  CancelRequests();
  GenerateEvent last{.kind = GenerateEvent::Kind::kError};
  last.usage = MakeUsage();
  last.error = std::move(error);
  std::exchange(observer_, nullptr)->OnEvent(std::move(last));
}

void GenerationService::Call::Finish() {
  GenerateEvent last{.kind = GenerateEvent::Kind::kDone};
  last.usage = MakeUsage();
  std::exchange(observer_, nullptr)->OnEvent(std::move(last));
}

void GenerationService::Call::Cancel() {
  cancelled_ = true;
  CancelRequests();
}

void GenerationService::Call::CancelRequests() {
  for (int64_t i = 0; i < options_.num_choices; ++i) {
    options_.engine->Cancel(options_.first_request_id + i);
  }
}

absl::Status GenerationService::Call::StatusOf(const TokenEvent& event) const {
  if (event.finish == FinishReason::kTimeout) {
    return WithDetail(absl::DeadlineExceededError("the request's time is over"),
                      {.code = "timeout"});
  }
  if (event.finish == FinishReason::kCancelled && cancelled_) {
    return absl::CancelledError("the request was cancelled");
  }
  if (event.finish == FinishReason::kCancelled) {
    return WithDetail(absl::UnavailableError("the server is shutting down"),
                      {.code = "unavailable"});
  }
  if (absl::IsInvalidArgument(event.error)) {
    return WithDetail(event.error, {.param = options_.constraint_field, .code = "invalid_value"});
  }
  return WithDetail(absl::InternalError(event.error.message()), {.code = "internal_error"});
}

Usage GenerationService::Call::MakeUsage() const {
  Usage usage{.prompt_tokens = options_.num_prompt_tokens,
              .cached_prompt_tokens = choices_[0].num_prompt_tokens_shared};
  for (const Choice& choice : choices_) {
    usage.completion_tokens += choice.stream.num_tokens();
    usage.traffic.read_bytes += choice.traffic.read_bytes;
    usage.traffic.dense_bytes += choice.traffic.dense_bytes;
  }
  const RequestTimes& times = choices_[0].times;
  usage.queue = times.scheduled - times.queued;
  usage.prefill = times.first_token - times.scheduled;
  usage.decode = std::max(times.finished - times.first_token, absl::ZeroDuration());
  return usage;
}

}  // namespace nsa
