#include "server/http/trace_json.h"

#include <utility>

namespace nsa {
namespace {

using Json = nlohmann::ordered_json;

Json LayerJson(const TokenTrace& trace, const TraceShape& shape, int64_t layer) {
  Json heads = Json::array();
  for (int64_t head = 0; head < shape.num_kv_heads; ++head) {
    heads.push_back(ChosenBlocks(trace, shape, layer, head));
  }
  return {{"layer", layer}, {"blocks", std::move(heads)}};
}

}  // namespace

Json TraceJson(const GenerateEvent& delta) {
  Json tokens = Json::array();
  for (size_t i = 0; i < delta.traces.size(); ++i) {
    const TokenTrace& trace = *delta.traces[i];
    Json layers = Json::array();
    for (const int64_t layer : delta.trace_shape->shown_layers) {
      layers.push_back(LayerJson(trace, *delta.trace_shape, layer));
    }
    tokens.push_back({{"token_id", delta.tokens[i]},
                      {"position", trace.position},
                      {"kv_read_bytes", trace.traffic.read_bytes},
                      {"kv_dense_bytes", trace.traffic.dense_bytes},
                      {"layers", std::move(layers)}});
  }
  return tokens;
}

}  // namespace nsa
