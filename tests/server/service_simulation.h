#pragma once
// What the simulation of the service is made of: a tokenizer of a few letters, constraints over
// them, the place where the engine's thread is held, and a call as its client sees it.

#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "server/generation_service.h"

namespace nsa {

// Eight letters, so that stop strings of two are met often, and an end of sequence.
class LetterTokenizer : public Tokenizer {
 public:
  static constexpr int32_t kLetters = 8, kBos = 8, kEos = 9;

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, bool /*bos*/) const override {
    std::vector<int32_t> tokens;
    for (const char c : text) tokens.push_back(c - 'a');
    return tokens;
  }
  std::string Decode(const std::vector<int32_t>& tokens) const override {
    std::string text;
    for (const int32_t token : tokens) text += TokenBytes(token);
    return text;
  }
  std::string TokenBytes(int32_t token) const override {
    return token >= 0 && token < kLetters ? std::string(1, static_cast<char>('a' + token)) : "";
  }
  int64_t max_token_bytes() const override { return 4; }
  int32_t vocab_size() const override { return kLetters + 2; }
  int32_t bos_token() const override { return kBos; }
  int32_t eos_token() const override { return kEos; }
  bool adds_leading_space() const override { return false; }
  const std::vector<ControlToken>& control_tokens() const override { return control_tokens_; }

 private:
  const std::vector<ControlToken> control_tokens_ = {{"<s>", kBos}, {"</s>", kEos}};
};

// Where the engine's thread waits in every step, and where calls say that they have ended.
class Gate {
 public:
  // The engine's thread.
  absl::Status Pass() {
    std::unique_lock lock(mutex_);
    is_parked_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return may_pass_; });
    is_parked_ = may_pass_ = false;
    return std::exchange(next_, absl::OkStatus());
  }
  void CallEnded() {
    const std::lock_guard lock(mutex_);
    --num_open_;
    changed_.notify_all();
  }
  // The clients'.
  void CallStarted() {
    const std::lock_guard lock(mutex_);
    ++num_open_;
  }
  // Lets a step end with `status`, if one is held.
  void Open(absl::Status status) {
    const std::lock_guard lock(mutex_);
    if (!is_parked_) return;
    next_ = std::move(status);
    may_pass_ = true;
    changed_.notify_all();
  }
  // Until a step is held (true) or no call is open.
  bool AwaitStep() {
    std::unique_lock lock(mutex_);
    const auto holds = [this] { return is_parked_ && !may_pass_; };
    changed_.wait(lock, [&] { return holds() || num_open_ == 0; });
    return holds();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_parked_ = false, may_pass_ = false;
  int64_t num_open_ = 0;  // calls
  absl::Status next_;
};

// A call as its client sees it. Events come from the engine's thread while the clients wait.
class Client : public GenerateObserver {
 public:
  Client(GenerateCall call, Gate* gate) : call(std::move(call)), gate_(gate) {}

  void OnEvent(GenerateEvent event) override {
    if (num_ends > 0) ++num_late;
    const bool is_end =
        event.kind == GenerateEvent::Kind::kDone || event.kind == GenerateEvent::Kind::kError;
    num_ends += is_end ? 1 : 0;
    events.push_back(std::move(event));
    if (is_end) gate_->CallEnded();
  }

  const GenerateCall call;
  Request request;  // of the first choice
  std::unique_ptr<GenerateHandle> handle;
  bool was_cancelled = false;
  std::vector<GenerateEvent> events;
  int num_ends = 0, num_late = 0;

 private:
  Gate* const gate_;
};

// Constraints that are kept already, so that no call has to wait for them.
class LetterConstraints {
 public:
  explicit LetterConstraints(const Tokenizer& tokenizer)
      : queue_(TokenTable::Create(tokenizer, std::vector<int32_t>{LetterTokenizer::kEos}).value(),
               {}) {
    for (const char* regex : {"[a-h]{3,12}", "(?:ab|cd?)*e", "[a-d]{2,30}"}) {
      given_.push_back(std::make_shared<GivenConstraint>(GivenConstraint{
          .field = "regex", .spec = {.kind = ConstraintKind::kRegex, .source = regex}}));
      std::promise<void> done;
      queue_.Compile({.place = queue_.Reserve("", 1).value(),
                      .spec = std::make_shared<ConstraintSpec>(given_.back()->spec)},
                     [&done](const ConstraintQueue::Compiled& compiled) {
                       NSA_CHECK(compiled.ok()) << compiled.status();
                       done.set_value();
                     });
      done.get_future().wait();
    }
  }
  ConstraintQueue* queue() { return &queue_; }
  const std::vector<std::shared_ptr<const GivenConstraint>>& given() const { return given_; }

 private:
  ConstraintQueue queue_;
  std::vector<std::shared_ptr<const GivenConstraint>> given_;
};

}  // namespace nsa
