// GET /v1/models, GET /v1/models/{id}

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/utf8.h"
#include "server/error_detail.h"
#include "server/http/endpoints.h"
#include "server/http/errors.h"
#include "server/http/response_shape.h"

namespace nsa {
namespace {

constexpr int64_t kMaxEchoedBytes = 64;  // of a client's text in a message
constexpr absl::string_view kModelPrefix = "/v1/models/";

// What a client needs to read traces.
nlohmann::ordered_json NsaJson(const ModelConfig& config) {
  const NsaShape& shape = config.nsa->shape;
  return {{"num_layers", config.num_layers},      {"num_kv_heads", config.num_kv_heads},
          {"block_tokens", shape.block_tokens},   {"num_selected_blocks", shape.num_selected},
          {"window_tokens", shape.window_tokens}, {"span_tokens", shape.span_tokens},
          {"span_stride", shape.span_stride}};
}

nlohmann::ordered_json ModelJson(const ModelInfo& model) {
  nlohmann::ordered_json json = {{"id", model.name},
                                 {"object", "model"},
                                 {"created", absl::ToUnixSeconds(model.created)},
                                 {"owned_by", "nsa-serve"},
                                 {"max_model_len", model.max_request_tokens}};
  if (model.attention == "nsa") json["nsa"] = NsaJson(model.config);
  return json;
}

}  // namespace

void HandleListModels(const ApiContext& api, const HttpRequest&,
                      std::shared_ptr<HttpResponder> responder) {
  nlohmann::ordered_json list = {{"object", "list"}, {"data", nlohmann::ordered_json::array()}};
  list["data"].push_back(ModelJson(api.service->model()));
  responder->Send({.body = DumpJson(list)});
}

void HandleGetModel(const ApiContext& api, const HttpRequest& request,
                    std::shared_ptr<HttpResponder> responder) {
  const ModelInfo& model = api.service->model();
  const absl::string_view name = absl::StripPrefix(request.path, kModelPrefix);
  if (name == model.name) return responder->Send({.body = DumpJson(ModelJson(model))});
  const absl::Status unknown =
      WithDetail(absl::NotFoundError(absl::StrCat(
                     "there is no model '", ClipUtf8(std::string(name), kMaxEchoedBytes), "'")),
                 {.param = "model", .code = "model_not_found"});
  responder->Send(ErrorResponse(ErrorFromStatus(unknown)));
}

}  // namespace nsa
