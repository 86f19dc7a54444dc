#pragma once
// GenerationService: THE service behind both transports. Validates, renders the chat template,
// tokenizes, submits to the engine; detokenizes, applies stop strings, counts usage. HTTP and gRPC
// translate to and from these structs and hold no logic of their own.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/config.h"
#include "engine/constraint/constraint_spec.h"
#include "engine/engine.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "server/block_trace.h"
#include "server/constraint_queue.h"

namespace nsa {

// What a client wants the answer to be.
struct GivenConstraint {
  std::string field;  // which says so, for errors
  ConstraintSpec spec;
};

// Fields as the client gave them; an absent optional takes the default of docs/api.md. Validation
// is the service's.
struct GenerateCall {
  std::string model;  // empty: the served model
  std::variant<std::string, std::vector<int64_t>, std::vector<ChatMessage>>
      input;  // text, token ids, chat
  std::optional<int64_t> max_tokens;
  std::optional<double> temperature, top_p, min_p;
  std::optional<double> presence_penalty, frequency_penalty, repetition_penalty;
  std::vector<std::pair<int64_t, double>> logit_bias;  // token id, bias
  std::optional<int64_t> min_tokens;
  std::optional<int64_t> priority;  // lower is served earlier
  bool echo = false;                // the choices' texts begin with the prompt's
  std::optional<int64_t> top_k, n;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<int64_t> stop_token_ids;
  bool ignore_eos = false;
  // Cached prompts are shared among calls with the same salt, of the same caller.
  std::string cache_salt;
  std::string caller;  // whose key was used, in hexadecimal digits; empty: keys are not asked for
  bool include_stop_text = false;
  std::optional<int64_t> num_logprobs;  // alternatives per token; absent: none at all
  std::optional<TraceWish> trace;       // absent: no traces
  std::optional<double> timeout_seconds;
  std::vector<std::shared_ptr<const GivenConstraint>> constraints;  // at most one is allowed
};

// One token's log-probability with its bytes (a token alone need not be valid UTF-8).
struct TokenLogprob {
  int32_t token = 0;
  std::string bytes;
  std::optional<double> logprob;  // absent: the first token of an echoed prompt
  struct Alternative {
    int32_t token = 0;
    std::string bytes;
    double logprob = 0;
  };
  std::vector<Alternative> top;  // most likely first
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;  // of them, those that the first choice found in the cache
  // Tokens sampled, of all choices: an end-of-sequence token and the tokens of a cut stop string
  // count.
  int64_t completion_tokens = 0;
  KvTraffic traffic;
  absl::Duration queue, prefill, decode;  // of the first choice
};

// A call that has been validated and tokenized, with its places in the queues: it must not outlive
// the engine.
struct PreparedCall {
  std::shared_ptr<Engine::Reservation> reservation;
  ConstraintQueue::Place constraint_place;            // if its constraint is to be compiled
  std::shared_ptr<const GivenConstraint> constraint;  // null: none
  Request request;  // of the first choice; the others differ in id and seed
  int64_t num_choices = 1;
  bool wants_logprobs = false;
  std::shared_ptr<const TraceShape> trace_shape;  // null: no traces
  bool echo = false;
  std::vector<std::string> stop;
  bool include_stop_text = false;
};
struct CallOptions;

// What the service tells a transport about a running call.
struct GenerateEvent {
  enum class Kind : uint8_t { kDelta, kProgress, kDone, kError };
  Kind kind = Kind::kDelta;
  int64_t choice = 0;
  // kDelta: whole code points; text held back for a stop string comes later. A choice with an echo
  // begins with a delta of the prompt, its tokens and, if asked for, their log-probabilities.
  std::string text;
  std::vector<int32_t> tokens;  // kDelta: in step with `text`; those behind a cut are dropped
  std::vector<TokenLogprob> logprobs;  // kDelta: one per entry of `tokens`, if asked for
  // kDelta, if asked for: one per entry of `tokens`, none for the prompt's; and how to read them.
  std::vector<std::shared_ptr<const TokenTrace>> traces;
  std::shared_ptr<const TraceShape> trace_shape;
  FinishReason finish = FinishReason::kNone;  // kDelta: kStop or kLength, once per choice
  // kProgress: of `choice`, tokens of the prompt in the cache so far, and all of them.
  int64_t prompt_tokens_done = 0, prompt_tokens_total = 0;
  // kDone: every choice has finished. kError: the last event instead, with what was used until
  // then.
  Usage usage;
  absl::Status error;  // kError
};

// Receives a call's events, in order, on the engine's thread: OnEvent must not block. After kDone
// or kError it is not called again and the service drops its reference.
class GenerateObserver {
 public:
  virtual ~GenerateObserver() = default;
  virtual void OnEvent(GenerateEvent event) = 0;
};

// A running call. Destroying it does not cancel; Cancel is idempotent and thread-safe.
class GenerateHandle {
 public:
  virtual ~GenerateHandle() = default;
  virtual void Cancel() = 0;
  virtual int64_t num_prompt_tokens() const = 0;
};

struct ModelInfo {
  std::string name;
  std::string attention;  // "nsa" or "full"
  ModelConfig config;
  int64_t max_request_tokens = 0;
  bool limited_by_cache = false;  // max_request_tokens is what the cache holds, not the context
  int64_t page_tokens = 0;
  int64_t num_pages = 0;
  absl::Time created;
};

// What a client needs to know to do as the tokenizer does.
struct TokenizerInfo {
  std::string class_name;  // as transformers names it: "LlamaTokenizer"
  std::optional<std::string> bos_token, eos_token, unk_token, pad_token;  // as they are spelled
  std::vector<ControlToken> special_tokens;
  int64_t vocab_size = 0;
  std::string chat_template;  // Jinja; empty: none, or one that cannot be used
};

// Defaults of sampling that a model brings along (generation_config.json).
struct SamplingDefaults {
  double temperature = 1, top_p = 1, min_p = 0;
  int64_t top_k = 0;
};

// An error of a client's call carries, as a status payload, the OpenAI error body's `param` and
// `code` (server/error_detail.h); both transports read them from there.
class GenerationService {
 public:
  struct Dependencies {
    Engine* engine = nullptr;
    const Tokenizer* tokenizer = nullptr;
    const ChatTemplate* chat_template = nullptr;  // null: the model has none and chat is refused
    ConstraintQueue* constraints = nullptr;       // null: constraints are refused
    ModelInfo model;
    TokenizerInfo tokenizer_info;
    SamplingDefaults defaults;
    absl::Duration liveness_timeout = absl::Seconds(30);
  };
  explicit GenerationService(Dependencies dependencies);
  virtual ~GenerationService() = default;

  // Validates and tokenizes calls that belong together (a list of prompts), of one caller and with
  // one constraint: all of them or none. Before they are tokenized, all of their choices have a
  // place in the engine's queue and their constraint one in its own, or they are refused. Their
  // time runs, and their latency is counted, since they `arrived`. DEADLINE_EXCEEDED: it is over.
  absl::StatusOr<std::vector<PreparedCall>> Prepare(std::span<const GenerateCall> calls,
                                                    absl::Time arrived = absl::Now()) const;

  // Before Start: compiles the constraint of calls that belong together, if they have one, and
  // hands the calls to `done`, once. Without a constraint, or with one that is kept, that happens
  // before this returns (kNoTicket); else on another thread, perhaps before this returns, unless
  // the ticket is cancelled before. INVALID_ARGUMENT: the constraint cannot be followed.
  // DEADLINE_EXCEEDED: the calls' time is over. UNAVAILABLE: the server is shutting down.
  using Completed = std::function<void(absl::StatusOr<std::vector<PreparedCall>>)>;
  ConstraintQueue::Ticket Complete(std::vector<PreparedCall> prepared, Completed done);
  void CancelCompletion(ConstraintQueue::Ticket ticket);

  // Submits completed calls; events reach `observer` from now on, possibly before this returns.
  // Virtual for those who watch the calls of a transport.
  virtual absl::StatusOr<std::unique_ptr<GenerateHandle>> Start(
      PreparedCall prepared, std::shared_ptr<GenerateObserver> observer);

  // All three for one call, waiting for its constraint: for callers with a thread to spare.
  absl::StatusOr<std::unique_ptr<GenerateHandle>> Generate(
      const GenerateCall& call, std::shared_ptr<GenerateObserver> observer);

  absl::StatusOr<std::vector<int32_t>> Tokenize(const std::string& model, const std::string& text,
                                                bool add_special_tokens) const;
  absl::StatusOr<std::vector<int32_t>> TokenizeChat(const std::string& model,
                                                    const std::vector<ChatMessage>& messages) const;
  absl::StatusOr<std::string> Detokenize(const std::string& model,
                                         const std::vector<int64_t>& tokens) const;

  const ModelInfo& model() const { return dependencies_.model; }
  const TokenizerInfo& tokenizer_info() const { return dependencies_.tokenizer_info; }
  // The engine's, with the requests that the queue of constraints refused.
  EngineStats engine_stats() const;
  // UNAVAILABLE if work is pending and no step has ended for the liveness timeout: the engine
  // hangs.
  absl::Status CheckLive() const;
  // UNAVAILABLE if it hangs, or while new work is refused.
  absl::Status CheckReady() const;

 private:
  class Call;

  struct Places;

  absl::Status CheckModel(const std::string& name) const;
  // Of a call that wants traces, else null.
  std::shared_ptr<const TraceShape> TraceShapeOf(const GenerateCall& call) const;
  absl::StatusOr<std::vector<CallOptions>> CheckCalls(std::span<const GenerateCall> calls) const;
  absl::StatusOr<Places> Reserve(std::span<const GenerateCall> calls,
                                 const std::vector<CallOptions>& options) const;
  void CountRejected(const std::vector<PreparedCall>& calls) const;
  absl::StatusOr<PreparedCall> PrepareOne(const GenerateCall& call, CallOptions options) const;
  // Token ids of the call's input, at least one.
  absl::StatusOr<std::vector<int32_t>> BuildPrompt(const GenerateCall& call) const;

  const Dependencies dependencies_;
  std::atomic<RequestId> next_request_id_{1};
};

}  // namespace nsa
