#include "server/grpc/messages.h"

#include <memory>
#include <string>
#include <utility>

#include "server/version.h"

namespace nsa {
namespace {

// The input of a request that has none is an empty text, which the service refuses.
decltype(GenerateCall::input) ToInput(const v1::GenerateRequest& request) {
  if (request.has_token_ids()) {
    const auto& ids = request.token_ids().ids();
    return std::vector<int64_t>(ids.begin(), ids.end());
  }
  if (!request.has_chat()) return request.text();
  return ToMessages(request.chat());
}

void AddConstraint(const v1::GenerateRequest& request, GenerateCall* call) {
  GivenConstraint given;
  switch (request.constraint_case()) {
    case v1::GenerateRequest::CONSTRAINT_NOT_SET:
      return;
    case v1::GenerateRequest::kJsonObject:
      if (!request.json_object()) return;
      given = {.field = "json_object", .spec = {.kind = ConstraintKind::kJsonObject}};
      break;
    case v1::GenerateRequest::kJsonSchema:
      given = {.field = "json_schema",
               .spec = {.kind = ConstraintKind::kJsonSchema, .source = request.json_schema()}};
      break;
    case v1::GenerateRequest::kRegex:
      given = {.field = "regex",
               .spec = {.kind = ConstraintKind::kRegex, .source = request.regex()}};
      break;
    case v1::GenerateRequest::kChoices: {
      const auto& texts = request.choices().texts();
      given = {.field = "choices",
               .spec = {.kind = ConstraintKind::kChoice, .choices = {texts.begin(), texts.end()}}};
      break;
    }
  }
  call->constraints.push_back(std::make_shared<const GivenConstraint>(std::move(given)));
}

v1::FinishReason ToFinishReason(FinishReason finish) {
  if (finish == FinishReason::kStop) return v1::FINISH_REASON_STOP;
  if (finish == FinishReason::kLength) return v1::FINISH_REASON_LENGTH;
  return v1::FINISH_REASON_UNSPECIFIED;
}

void FillLogprob(TokenLogprob logprob, v1::TokenLogprob* message) {
  message->set_token_id(logprob.token);
  message->set_token(std::move(logprob.bytes));
  if (logprob.logprob.has_value()) message->set_logprob(static_cast<float>(*logprob.logprob));
  for (TokenLogprob::Alternative& alternative : logprob.top) {
    v1::TopLogprob* top = message->add_top();
    top->set_token_id(alternative.token);
    top->set_token(std::move(alternative.bytes));
    top->set_logprob(static_cast<float>(alternative.logprob));
  }
}

void FillTrace(const TokenTrace& trace, const TraceShape& shape, v1::TokenTrace* message) {
  message->set_position(trace.position);
  message->set_kv_read_bytes(trace.traffic.read_bytes);
  message->set_kv_dense_bytes(trace.traffic.dense_bytes);
  for (const int64_t layer : shape.shown_layers) {
    v1::LayerBlocks* blocks = message->add_layers();
    blocks->set_layer(layer);
    for (int64_t head = 0; head < shape.num_kv_heads; ++head) {
      const auto chosen = ChosenBlocks(trace, shape, layer, head);
      blocks->add_heads()->mutable_blocks()->Add(chosen.begin(), chosen.end());
    }
  }
}

void FillUsage(const Usage& usage, v1::Usage* message) {
  message->set_prompt_tokens(usage.prompt_tokens);
  message->set_cached_prompt_tokens(usage.cached_prompt_tokens);
  message->set_completion_tokens(usage.completion_tokens);
  message->set_kv_read_bytes(usage.traffic.read_bytes);
  message->set_kv_dense_bytes(usage.traffic.dense_bytes);
  message->set_queue_seconds(absl::ToDoubleSeconds(usage.queue));
  message->set_prefill_seconds(absl::ToDoubleSeconds(usage.prefill));
  message->set_decode_seconds(absl::ToDoubleSeconds(usage.decode));
}

}  // namespace

std::vector<ChatMessage> ToMessages(const v1::ChatMessages& chat) {
  std::vector<ChatMessage> messages;
  for (const v1::ChatMessage& message : chat.messages()) {
    messages.push_back({.role = message.role(), .content = message.content()});
  }
  return messages;
}

GenerateCall ToGenerateCall(const v1::GenerateRequest& request) {
  GenerateCall call;
  call.model = request.model();
  call.input = ToInput(request);
  if (request.has_max_tokens()) call.max_tokens = request.max_tokens();
  if (request.has_temperature()) call.temperature = request.temperature();
  if (request.has_top_p()) call.top_p = request.top_p();
  if (request.has_top_k()) call.top_k = request.top_k();
  if (request.has_min_p()) call.min_p = request.min_p();
  if (request.has_seed()) call.seed = request.seed();
  if (request.has_n()) call.n = request.n();
  call.stop.assign(request.stop().begin(), request.stop().end());
  call.stop_token_ids.assign(request.stop_token_ids().begin(), request.stop_token_ids().end());
  call.include_stop_text = request.include_stop_text();
  call.cache_salt = request.cache_salt();
  if (request.has_presence_penalty()) call.presence_penalty = request.presence_penalty();
  if (request.has_frequency_penalty()) call.frequency_penalty = request.frequency_penalty();
  if (request.has_repetition_penalty()) call.repetition_penalty = request.repetition_penalty();
  call.logit_bias.assign(request.logit_bias().begin(), request.logit_bias().end());
  if (request.has_min_tokens()) call.min_tokens = request.min_tokens();
  if (request.has_priority()) call.priority = request.priority();
  call.echo = request.echo();
  call.ignore_eos = request.ignore_eos();
  if (request.has_logprobs()) call.num_logprobs = request.logprobs();
  AddConstraint(request, &call);
  if (request.has_nsa_trace()) {
    const auto& layers = request.nsa_trace().layers();
    call.trace = TraceWish{.layers = {layers.begin(), layers.end()}};
  }
  if (request.has_timeout_seconds()) call.timeout_seconds = request.timeout_seconds();
  return call;
}

v1::GenerateResponse ToGenerateResponse(GenerateEvent event) {
  v1::GenerateResponse response;
  response.set_choice_index(static_cast<int32_t>(event.choice));
  if (event.kind == GenerateEvent::Kind::kProgress) {
    response.mutable_progress()->set_prompt_tokens_done(event.prompt_tokens_done);
    response.mutable_progress()->set_prompt_tokens_total(event.prompt_tokens_total);
    return response;
  }
  if (event.kind == GenerateEvent::Kind::kDone) {
    FillUsage(event.usage, response.mutable_usage());
    return response;
  }
  response.set_text(std::move(event.text));
  response.mutable_token_ids()->Add(event.tokens.begin(), event.tokens.end());
  for (TokenLogprob& logprob : event.logprobs) {
    FillLogprob(std::move(logprob), response.add_logprobs());
  }
  for (size_t i = 0; i < event.traces.size(); ++i) {
    v1::TokenTrace* trace = response.add_nsa_trace();
    trace->set_token_id(event.tokens[i]);
    FillTrace(*event.traces[i], *event.trace_shape, trace);
  }
  response.set_finish_reason(ToFinishReason(event.finish));
  return response;
}

v1::GetModelInfoResponse ToModelInfoResponse(const ModelInfo& model) {
  v1::GetModelInfoResponse response;
  response.set_model(model.name);
  response.set_architecture(model.config.architecture);
  response.set_attention(model.attention);
  response.set_vocab_size(model.config.vocab_size);
  response.set_max_model_tokens(model.max_request_tokens);
  response.set_num_layers(model.config.num_layers);
  response.set_num_heads(model.config.num_heads);
  response.set_num_kv_heads(model.config.num_kv_heads);
  response.set_block_tokens(model.page_tokens);
  response.set_num_pages(model.num_pages);
  response.set_version(ServerVersion());
  if (model.attention != "nsa") return response;
  const NsaShape& shape = model.config.nsa->shape;
  response.set_window_tokens(shape.window_tokens);
  response.set_num_selected_blocks(shape.num_selected);
  response.set_span_tokens(shape.span_tokens);
  response.set_span_stride(shape.span_stride);
  return response;
}

// The codes of both libraries are the same numbers.
grpc::Status ToGrpcStatus(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

}  // namespace nsa
