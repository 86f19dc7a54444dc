#pragma once
// ServiceHarness: a GenerationService over a scripted engine; CollectingObserver: what a call told.

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "base/check.h"
#include "server/generation_service.h"
#include "tests/support/fake_tokenizer.h"
#include "tests/support/scripted_executor.h"

namespace nsa {

class CollectingObserver : public GenerateObserver {
 public:
  void OnEvent(GenerateEvent event) override {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    changed_.notify_all();
  }

  // Blocks until the last event.
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return IsOver(); });
  }
  void WaitForEvents(size_t num_events) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return events_.size() >= num_events; });
  }

  std::vector<GenerateEvent> events() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }
  GenerateEvent last() const {
    NSA_CHECK(!events().empty());
    return events().back();
  }
  std::string Text(int64_t choice = 0) const {
    std::string text;
    for (const GenerateEvent& event : events()) {
      if (event.choice == choice) text += event.text;
    }
    return text;
  }
  std::vector<int32_t> Tokens(int64_t choice = 0) const {
    std::vector<int32_t> tokens;
    for (const GenerateEvent& event : events()) {
      if (event.choice != choice) continue;
      tokens.insert(tokens.end(), event.tokens.begin(), event.tokens.end());
    }
    return tokens;
  }
  // Every finish reason that was told, by choice.
  std::map<int64_t, std::vector<FinishReason>> Finishes() const {
    std::map<int64_t, std::vector<FinishReason>> finishes;
    for (const GenerateEvent& event : events()) {
      if (event.finish != FinishReason::kNone) finishes[event.choice].push_back(event.finish);
    }
    return finishes;
  }

 private:
  bool IsOver() const {
    return !events_.empty() && (events_.back().kind == GenerateEvent::Kind::kDone ||
                                events_.back().kind == GenerateEvent::Kind::kError);
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<GenerateEvent> events_;
};

struct ServiceHarness {
  explicit ServiceHarness(std::vector<std::string> pieces = {}, EngineOptions options = {},
                          const ConstraintQueueOptions& constraint_options = {})
      : tokenizer(std::move(pieces)),
        executor(tokenizer.vocab_size()),
        engine(options, &executor),
        constraints(
            TokenTable::Create(tokenizer, std::vector<int32_t>{FakeTokenizer::kEos}).value(),
            constraint_options),
        service(Dependencies()) {}

  GenerationService::Dependencies Dependencies() {
    chat_template = *ChatTemplate::Compile(
        "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
        "{{ raise_exception('system comes first') }}{% endif %}{{ m.content }}|{% endfor %}",
        "<s>", "</s>");
    GenerationService::Dependencies dependencies{.engine = &engine,
                                                 .tokenizer = &tokenizer,
                                                 .chat_template = chat_template.get(),
                                                 .constraints = &constraints};
    dependencies.model.name = "tiny";
    dependencies.model.attention = "nsa";
    dependencies.model.config.nsa.emplace();
    dependencies.model.config.architecture = "NsaForCausalLM";
    dependencies.model.config.vocab_size = tokenizer.vocab_size();
    dependencies.model.config.eos_tokens = {FakeTokenizer::kEos};
    dependencies.model.config.num_layers = 3;
    dependencies.model.config.num_heads = 4;
    dependencies.model.config.num_kv_heads = 2;
    dependencies.model.max_request_tokens = engine.max_request_tokens();
    dependencies.model.page_tokens = executor.limits().page_tokens;
    dependencies.model.num_pages = executor.limits().num_pages;
    return dependencies;
  }

  // Samples `text` byte by byte behind a prompt of `num_prompt_tokens` tokens, then EOS for ever.
  void SayBytes(const std::string& text, int64_t num_prompt_tokens) {
    executor.set_script([text, num_prompt_tokens](const SampleRow& row) {
      const auto i = static_cast<size_t>(row.position - num_prompt_tokens);
      return i < text.size() ? static_cast<uint8_t>(text[i]) : FakeTokenizer::kEos;
    });
  }

  // Until nothing runs and every page is free.
  bool BecomesIdle() {
    for (int i = 0; i < 1000; ++i) {
      const EngineStats stats = engine.Stats();
      if (stats.num_running == 0 && stats.num_waiting == 0 &&
          stats.num_free_pages == stats.num_pages) {
        return true;
      }
      absl::SleepFor(absl::Milliseconds(10));
    }
    return false;
  }

  FakeTokenizer tokenizer;
  ScriptedExecutor executor;
  Engine engine;
  std::unique_ptr<ChatTemplate> chat_template;
  ConstraintQueue constraints;
  GenerationService service;
};

}  // namespace nsa
