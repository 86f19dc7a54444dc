#include "server/generation_service.h"

#include <algorithm>
#include <future>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/status.h"
#include "base/utf8.h"
#include "engine/text/chat_prompt.h"
#include "server/call.h"
#include "server/call_checks.h"
#include "server/error_detail.h"

namespace nsa {
namespace {

constexpr int64_t kMaxEchoedBytes = 64;  // of a client's text in a message

using Chat = std::vector<ChatMessage>;

std::string InputField(const GenerateCall& call) {
  return std::holds_alternative<Chat>(call.input) ? "messages" : "prompt";
}

uint64_t RandomSeed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

// The engine's refusals with the codes of the OpenAI error body; `field` is at fault where one is.
absl::Status WithEngineDetail(const absl::Status& status, const std::string& field) {
  if (absl::IsResourceExhausted(status)) return WithDetail(status, {.code = "overloaded"});
  if (absl::IsUnavailable(status)) return WithDetail(status, {.code = "unavailable"});
  if (absl::IsDeadlineExceeded(status)) return WithDetail(status, {.code = "timeout"});
  return WithDetail(status, {.param = field, .code = "invalid_value"});
}

// True if no token of the prompt is text, so that the generated text is a text's beginning.
bool IsTextStart(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt) {
  return std::all_of(prompt.begin(), prompt.end(),
                     [&](int32_t token) { return tokenizer.TokenBytes(token).empty(); });
}

absl::StatusOr<std::vector<int32_t>> EncodeMessages(const ChatTemplate* chat_template,
                                                    const Tokenizer& tokenizer,
                                                    const Chat& messages) {
  if (chat_template == nullptr) {
    return InvalidValue("messages", "this model has no chat template; use completions");
  }
  NSA_RETURN_IF_ERROR(CheckMessages(messages));
  Chat chat = messages;
  for (ChatMessage& message : chat) {
    if (message.role == "developer") message.role = "system";  // OpenAI's newer name for it
  }
  auto tokens = EncodeChat(*chat_template, tokenizer, chat);
  if (!tokens.ok()) return InvalidValue("messages", std::string(tokens.status().message()));
  return tokens;
}

absl::StatusOr<std::vector<int32_t>> EncodeText(const Tokenizer& tokenizer, const std::string& text,
                                                bool add_special_tokens) {
  NSA_RETURN_IF_ERROR(CheckText(text, "prompt"));
  return tokenizer.Encode(text, add_special_tokens);
}

// One engine request per choice, with a seed of its own.
std::vector<Request> MakeRequests(const Request& first, int64_t num_choices) {
  std::vector<Request> requests(num_choices, first);
  for (int64_t i = 0; i < num_choices; ++i) {
    requests[i].id = first.id + i;
    requests[i].counts_prompt = i == 0;
    if (i > 0) requests[i].same_prompt_as = first.id;
    requests[i].sampling.seed = first.sampling.seed + i;
  }
  return requests;
}

template <typename Call>
class Handle : public GenerateHandle {
 public:
  explicit Handle(std::shared_ptr<Call> call) : call_(std::move(call)) {}
  void Cancel() override { call_->Cancel(); }
  int64_t num_prompt_tokens() const override { return call_->num_prompt_tokens(); }

 private:
  std::shared_ptr<Call> call_;
};

}  // namespace

GenerationService::GenerationService(Dependencies dependencies)
    : dependencies_(std::move(dependencies)) {}

absl::StatusOr<std::unique_ptr<GenerateHandle>> GenerationService::Generate(
    const GenerateCall& call, std::shared_ptr<GenerateObserver> observer) {
  NSA_ASSIGN_OR_RETURN(std::vector<PreparedCall> prepared, Prepare({&call, 1}));
  std::promise<absl::StatusOr<std::vector<PreparedCall>>> promise;
  Complete(std::move(prepared), [&](auto completed) { promise.set_value(std::move(completed)); });
  NSA_ASSIGN_OR_RETURN(prepared, promise.get_future().get());
  return Start(std::move(prepared.front()), std::move(observer));
}

ConstraintQueue::Ticket GenerationService::Complete(std::vector<PreparedCall> prepared,
                                                    Completed done) {
  const std::shared_ptr<const GivenConstraint> given = prepared.front().constraint;
  if (given == nullptr || prepared.front().request.constraint != nullptr) {
    done(std::move(prepared));
    return ConstraintQueue::kNoTicket;
  }
  // The spec within what `given` owns.
  ConstraintQueue::Order order{.place = std::move(prepared.front().constraint_place),
                               .spec = {given, &given->spec},
                               .deadline = prepared.front().request.deadline};
  auto completed = [prepared = std::move(prepared), done = std::move(done), field = given->field,
                    this](ConstraintQueue::Compiled compiled) mutable {
    if (!compiled.ok()) {
      if (absl::IsResourceExhausted(compiled.status())) CountRejected(prepared);
      prepared.clear();  // their places are free before anybody hears of it
      return done(WithEngineDetail(compiled.status(), field));
    }
    for (PreparedCall& call : prepared) call.request.constraint = *compiled;
    done(std::move(prepared));
  };
  return dependencies_.constraints->Compile(std::move(order), std::move(completed));
}

// By the memory of all constraints.
void GenerationService::CountRejected(const std::vector<PreparedCall>& calls) const {
  int64_t num_requests = 0;
  for (const PreparedCall& call : calls) num_requests += call.num_choices;
  dependencies_.constraints->CountRejected(num_requests);
}

void GenerationService::CancelCompletion(ConstraintQueue::Ticket ticket) {
  if (ticket != ConstraintQueue::kNoTicket) dependencies_.constraints->Cancel(ticket);
}

// Of calls that belong together.
struct GenerationService::Places {
  std::unique_ptr<Engine::Reservation> requests;
  ConstraintQueue::Place constraint;  // null: none is to be compiled
  std::shared_ptr<const CompiledConstraint> kept_constraint;
};

absl::StatusOr<std::vector<CallOptions>> GenerationService::CheckCalls(
    std::span<const GenerateCall> calls) const {
  std::vector<CallOptions> options;
  for (const GenerateCall& call : calls) {
    NSA_RETURN_IF_ERROR(CheckModel(call.model));
    NSA_RETURN_IF_ERROR(CheckTrace(call, dependencies_.model));
    NSA_ASSIGN_OR_RETURN(CallOptions checked, CheckOptions(call, dependencies_.defaults,
                                                           dependencies_.model.config.vocab_size));
    if (checked.constraint != nullptr && dependencies_.constraints == nullptr) {
      return InvalidValue(checked.constraint->field,
                          "answers of this model cannot be constrained: its vocabulary forbids it");
    }
    options.push_back(std::move(checked));
  }
  return options;
}

// Before a prompt is tokenized: under overload a refusal must cost next to nothing.
absl::StatusOr<GenerationService::Places> GenerationService::Reserve(
    std::span<const GenerateCall> calls, const std::vector<CallOptions>& options) const {
  AdmissionLoad load{.num_tokens = static_cast<int64_t>(calls.size())};  // at least
  for (const CallOptions& some : options) load.num_requests += some.num_choices;
  Places places;
  auto reservation = dependencies_.engine->Reserve(load);
  if (!reservation.ok()) {
    return WithEngineDetail(reservation.status(), calls.size() > 1 ? "prompt" : "n");
  }
  places.requests = *std::move(reservation);
  const std::shared_ptr<const GivenConstraint> given = options.front().constraint;
  if (given == nullptr) return places;
  if (const auto known = dependencies_.constraints->Find(given->spec); known.has_value()) {
    if (!known->ok()) return WithEngineDetail(known->status(), given->field);
    places.kept_constraint = **known;
    return places;
  }
  auto place = dependencies_.constraints->Reserve(calls.front().caller, load.num_requests);
  if (!place.ok()) return WithEngineDetail(place.status(), given->field);
  places.constraint = *std::move(place);
  return places;
}

absl::StatusOr<std::vector<PreparedCall>> GenerationService::Prepare(
    std::span<const GenerateCall> calls, absl::Time arrived) const {
  NSA_ASSIGN_OR_RETURN(std::vector<CallOptions> options, CheckCalls(calls));
  for (const CallOptions& some : options) {
    if (absl::Now() < arrived + some.timeout) continue;
    return WithDetail(absl::DeadlineExceededError("the request's time is over"),
                      {.code = "timeout"});
  }
  NSA_ASSIGN_OR_RETURN(Places places, Reserve(calls, options));
  std::vector<PreparedCall> prepared;
  int64_t num_tokens = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    const absl::Time deadline = arrived + options[i].timeout;
    NSA_ASSIGN_OR_RETURN(PreparedCall call, PrepareOne(calls[i], std::move(options[i])));
    call.request.arrived = arrived;
    call.request.deadline = deadline;
    call.request.constraint = places.kept_constraint;
    num_tokens += static_cast<int64_t>(call.request.prompt.size());
    prepared.push_back(std::move(call));
  }
  if (absl::Status status = places.requests->SetTokens(num_tokens); !status.ok()) {
    return WithEngineDetail(status, "prompt");
  }
  for (PreparedCall& call : prepared) {
    const auto num_prompt_tokens = static_cast<int64_t>(call.request.prompt.size());
    call.reservation =
        places.requests->Split({.num_requests = call.num_choices, .num_tokens = num_prompt_tokens});
  }
  prepared.front().constraint_place = std::move(places.constraint);
  return prepared;
}

absl::StatusOr<PreparedCall> GenerationService::PrepareOne(const GenerateCall& call,
                                                           CallOptions options) const {
  const ModelInfo& model = dependencies_.model;
  PreparedCall prepared{.constraint = std::move(options.constraint),
                        .num_choices = options.num_choices,
                        .wants_logprobs = call.num_logprobs.has_value(),
                        .trace_shape = TraceShapeOf(call),
                        .echo = call.echo,
                        .stop = call.stop,
                        .include_stop_text = call.include_stop_text};
  Request& request = prepared.request;
  NSA_ASSIGN_OR_RETURN(request.prompt, BuildPrompt(call));
  const ContextRoom room{.num_prompt_tokens = static_cast<int64_t>(request.prompt.size()),
                         .max_request_tokens = model.max_request_tokens,
                         .limited_by_cache = model.limited_by_cache,
                         .is_chat = std::holds_alternative<Chat>(call.input)};
  NSA_ASSIGN_OR_RETURN(request.max_tokens, CheckMaxTokens(options.max_tokens, room));
  NSA_RETURN_IF_ERROR(CheckMinTokens(options.rules.min_tokens, request.max_tokens));
  request.stop_token_ids = std::move(options.stop_token_ids);
  if (!call.ignore_eos) {
    const std::vector<int32_t>& eos_tokens = model.config.eos_tokens;
    request.stop_token_ids.insert(request.stop_token_ids.end(), eos_tokens.begin(),
                                  eos_tokens.end());
  }
  request.sampling = options.sampling;
  request.priority = options.priority;
  request.rules = std::move(options.rules);
  request.traces_blocks = prepared.trace_shape != nullptr;
  request.scores_prompt = call.echo && call.num_logprobs.has_value();
  request.cache_salt =
      call.caller.empty() ? call.cache_salt : absl::StrCat(call.caller, ":", call.cache_salt);
  if (!call.seed.has_value()) request.sampling.seed = RandomSeed();
  request.num_top_logprobs = options.num_top_logprobs;
  return prepared;
}

absl::StatusOr<std::unique_ptr<GenerateHandle>> GenerationService::Start(
    PreparedCall prepared, std::shared_ptr<GenerateObserver> observer) {
  Engine* engine = dependencies_.engine;
  Request& request = prepared.request;
  request.id = next_request_id_.fetch_add(prepared.num_choices);
  Call::Options call_options{.engine = engine,
                             .first_request_id = request.id,
                             .num_choices = prepared.num_choices,
                             .num_prompt_tokens = static_cast<int64_t>(request.prompt.size())};
  if (prepared.constraint != nullptr) call_options.constraint_field = prepared.constraint->field;
  if (prepared.echo) {
    call_options.echoed_prompt = request.prompt;
    call_options.echoed_text = dependencies_.tokenizer->Decode(request.prompt);
  }
  call_options.choice = {
      .tokenizer = dependencies_.tokenizer,
      .at_text_start = IsTextStart(*dependencies_.tokenizer, request.prompt),
      .wants_logprobs = prepared.wants_logprobs,
      .trace_shape = std::move(prepared.trace_shape),
      .stop = std::move(prepared.stop),
      .stop_text = prepared.include_stop_text ? StopText::kKept : StopText::kCut};
  auto running = std::make_shared<Call>(call_options, std::move(observer));
  const absl::Status status =
      engine->Submit(MakeRequests(request, prepared.num_choices), running, *prepared.reservation);
  if (!status.ok()) return WithEngineDetail(status, "prompt");
  return std::make_unique<Handle<Call>>(std::move(running));
}

EngineStats GenerationService::engine_stats() const {
  EngineStats stats = dependencies_.engine->Stats();
  if (dependencies_.constraints != nullptr) {
    stats.num_rejected[static_cast<size_t>(RejectReason::kConstraintQueue)] =
        dependencies_.constraints->num_rejected();
  }
  return stats;
}

absl::Status GenerationService::CheckLive() const {
  const EngineStats stats = dependencies_.engine->Stats();
  const absl::Duration silence = absl::Now() - stats.last_step_finished;
  // What is being prepared keeps no step from ending.
  const bool has_work = stats.num_running > 0 || stats.num_waiting > 0;
  if (!has_work || silence <= dependencies_.liveness_timeout) return absl::OkStatus();
  return WithDetail(absl::UnavailableError(absl::StrFormat(
                        "requests are pending and no engine step has ended for %.1f s",
                        absl::ToDoubleSeconds(silence))),
                    {.code = "unavailable"});
}

absl::Status GenerationService::CheckReady() const {
  NSA_RETURN_IF_ERROR(CheckLive());
  if (!dependencies_.engine->Stats().draining) return absl::OkStatus();
  return WithDetail(absl::UnavailableError("the server is shutting down"), {.code = "unavailable"});
}

absl::Status GenerationService::CheckModel(const std::string& name) const {
  if (name.empty() || name == dependencies_.model.name) return absl::OkStatus();
  return WithDetail(
      absl::NotFoundError(absl::StrCat("there is no model '", ClipUtf8(name, kMaxEchoedBytes),
                                       "'; this server serves '", dependencies_.model.name, "'")),
      {.param = "model", .code = "model_not_found"});
}

std::shared_ptr<const TraceShape> GenerationService::TraceShapeOf(const GenerateCall& call) const {
  if (!call.trace.has_value()) return nullptr;
  const ModelConfig& config = dependencies_.model.config;
  TraceShape shape{.num_layers = config.num_layers,
                   .num_kv_heads = config.num_kv_heads,
                   .shown_layers = call.trace->layers};
  if (shape.shown_layers.empty()) {
    shape.shown_layers.resize(config.num_layers);
    std::iota(shape.shown_layers.begin(), shape.shown_layers.end(), 0);
  }
  return std::make_shared<const TraceShape>(std::move(shape));
}

absl::StatusOr<std::vector<int32_t>> GenerationService::BuildPrompt(
    const GenerateCall& call) const {
  const Tokenizer& tokenizer = *dependencies_.tokenizer;
  const TextRoom room{.max_request_tokens = dependencies_.model.max_request_tokens,
                      .max_token_bytes = tokenizer.max_token_bytes()};
  absl::StatusOr<std::vector<int32_t>> prompt;
  if (const auto* messages = std::get_if<Chat>(&call.input)) {
    NSA_RETURN_IF_ERROR(CheckMessagesFit(*messages, room));
    prompt = EncodeMessages(dependencies_.chat_template, tokenizer, *messages);
  } else if (const auto* text = std::get_if<std::string>(&call.input)) {
    if (text->empty()) return InvalidValue("prompt", "the prompt is empty");
    NSA_RETURN_IF_ERROR(CheckTextFits(*text, room));
    prompt = EncodeText(tokenizer, *text, /*add_special_tokens=*/true);
  } else {
    prompt = CheckTokenIds(std::get<std::vector<int64_t>>(call.input), "prompt",
                           dependencies_.model.config.vocab_size);
  }
  if (prompt.ok() && prompt->empty()) {
    return InvalidValue(InputField(call), InputField(call) == "prompt"
                                              ? "the prompt gives no tokens"
                                              : "the messages give no tokens");
  }
  return prompt;
}

absl::StatusOr<std::vector<int32_t>> GenerationService::Tokenize(const std::string& model,
                                                                 const std::string& text,
                                                                 bool add_special_tokens) const {
  NSA_RETURN_IF_ERROR(CheckModel(model));
  NSA_RETURN_IF_ERROR(CheckTokenizeBytes(static_cast<int64_t>(text.size()), "prompt"));
  return EncodeText(*dependencies_.tokenizer, text, add_special_tokens);
}

absl::StatusOr<std::vector<int32_t>> GenerationService::TokenizeChat(
    const std::string& model, const std::vector<ChatMessage>& messages) const {
  NSA_RETURN_IF_ERROR(CheckModel(model));
  NSA_RETURN_IF_ERROR(CheckTokenizeBytes(NumBytes(messages), "messages"));
  return EncodeMessages(dependencies_.chat_template, *dependencies_.tokenizer, messages);
}

absl::StatusOr<std::string> GenerationService::Detokenize(
    const std::string& model, const std::vector<int64_t>& tokens) const {
  NSA_RETURN_IF_ERROR(CheckModel(model));
  NSA_RETURN_IF_ERROR(CheckDetokenizeTokens(static_cast<int64_t>(tokens.size())));
  NSA_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                       CheckTokenIds(tokens, "tokens", dependencies_.model.config.vocab_size));
  return dependencies_.tokenizer->Decode(ids);
}

}  // namespace nsa
