#include "engine/config.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "kernels/checks.h"
#include "nlohmann/json.hpp"

namespace nsa {
namespace {

using Json = nlohmann::json;

// Far above any real model, low enough that no product of two of them overflows.
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxPosition = int64_t{1} << 26;
constexpr int64_t kMaxBlockTokens = 4096;
constexpr int64_t kMaxSelected = 4096;
constexpr size_t kMaxShownBytes = 80;

// A value as a message shows it: short, and never recursive, since a file may nest without end.
std::string Found(const Json& value) {
  if (value.is_structured()) return absl::StrCat("an ", value.type_name());
  const std::string text = value.dump();
  return text.size() <= kMaxShownBytes ? text : text.substr(0, kMaxShownBytes) + "...";
}

// Typed, range-checked access to the keys of one JSON object. The first complaint is kept and every
// later read returns something harmless, so that a parser reads as a plain list of keys.
class KeyReader {
 public:
  KeyReader(const Json& object, std::string prefix, absl::Status* first_error)
      : object_(object), prefix_(std::move(prefix)), first_error_(first_error) {}

  bool Has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }

  int64_t Int(const char* key, int64_t min, int64_t max, std::optional<int64_t> fallback = {}) {
    const std::string allowed = absl::StrCat("an integer from ", min, " to ", max);
    const Json* value = Find(key, allowed, fallback.has_value());
    if (value == nullptr) return fallback.value_or(min);
    const bool too_large =
        value->is_number_unsigned() &&
        value->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (!value->is_number_integer() || too_large || value->get<int64_t>() < min ||
        value->get<int64_t>() > max) {
      Refuse(key, Found(*value), allowed);
      return min;
    }
    return value->get<int64_t>();
  }

  // A number in (0, max].
  double Positive(const char* key, double max, std::optional<double> fallback = {}) {
    const std::string allowed = absl::StrCat("a number above 0, at most ", max);
    const Json* value = Find(key, allowed, fallback.has_value());
    if (value == nullptr) return fallback.value_or(max);
    if (!value->is_number() || !(value->get<double>() > 0) || value->get<double>() > max) {
      Refuse(key, Found(*value), allowed);
      return max;
    }
    return value->get<double>();
  }

  bool Bool(const char* key, std::optional<bool> fallback = {}) {
    const Json* value = Find(key, "true or false", fallback.has_value());
    if (value == nullptr) return fallback.value_or(false);
    if (!value->is_boolean()) {
      Refuse(key, Found(*value), "true or false");
      return false;
    }
    return value->get<bool>();
  }

  // One of `names`; returns its index.
  int Choice(const char* key, std::initializer_list<const char*> names,
             std::optional<int> fallback = {}) {
    const std::string allowed = absl::StrJoin(names, ", ");
    const Json* value = Find(key, allowed, fallback.has_value());
    if (value == nullptr) return fallback.value_or(0);
    for (int i = 0; i < static_cast<int>(names.size()); ++i) {
      if (*value == names.begin()[i]) return i;
    }
    Refuse(key, Found(*value), allowed);
    return 0;
  }

  std::string Text(const char* key) {
    const Json* value = Find(key, "a string", /*optional=*/true);
    if (value == nullptr) return "";
    if (value->is_string()) return value->get<std::string>();
    Refuse(key, Found(*value), "a string");
    return "";
  }

  // A setting of which one value is implemented; absent and null mean that value.
  void Only(const char* key, const Json& implemented) {
    if (!Has(key) || object_[key] == implemented) return;
    Keep(absl::UnimplementedError(absl::StrCat("config.json: ", prefix_, key, " is ",
                                               Found(object_[key]),
                                               "; supported: ", implemented.dump(), " only")));
  }

  void Refuse(const std::string& key, const std::string& found, const std::string& allowed) {
    Keep(absl::InvalidArgumentError(
        absl::StrCat("config.json: ", prefix_, key, " is ", found, "; allowed: ", allowed)));
  }

  // Requires `holds`, a relation of `key` to other keys.
  void Require(bool holds, const char* key, int64_t found, const std::string& allowed) {
    if (!holds) Refuse(key, absl::StrCat(found), allowed);
  }

  void RefuseUnknownKeys(const std::set<std::string>& known) {
    for (const auto& [key, value] : object_.items()) {
      if (!known.contains(key)) Refuse(key, Found(value), absl::StrJoin(known, ", "));
    }
  }

  const Json& at(const char* key) const { return object_[key]; }
  absl::Status* first_error() const { return first_error_; }

 private:
  const Json* Find(const char* key, const std::string& allowed, bool optional) {
    if (Has(key)) return &object_[key];
    if (!optional) Refuse(key, object_.contains(key) ? "null" : "missing", allowed);
    return nullptr;
  }

  void Keep(absl::Status error) {
    if (first_error_->ok()) *first_error_ = std::move(error);
  }

  const Json& object_;
  std::string prefix_;
  absl::Status* first_error_;
};

// ---- parts that several architectures share -----------------------------------------------------

void ReadTokenIds(KeyReader& keys, ModelConfig& config) {
  const int64_t last = config.vocab_size - 1;
  if (keys.Has("bos_token_id")) {
    config.bos_token = static_cast<int32_t>(keys.Int("bos_token_id", 0, last));
  }
  if (!keys.Has("eos_token_id")) return;
  if (!keys.at("eos_token_id").is_array()) {
    config.eos_tokens = {static_cast<int32_t>(keys.Int("eos_token_id", 0, last))};
    return;
  }
  for (const Json& token : keys.at("eos_token_id")) {
    const Json wrapped = {{"eos_token_id", token}};
    KeyReader element(wrapped, "", keys.first_error());
    config.eos_tokens.push_back(static_cast<int32_t>(element.Int("eos_token_id", 0, last)));
  }
}

// `rope_scaling`, or `rope_parameters` of newer files, which holds rope_theta as well.
void ReadRopeObject(KeyReader& keys, const char* name, ModelConfig& config) {
  if (!keys.Has(name)) return;
  if (!keys.at(name).is_object()) {
    keys.Refuse(name, Found(keys.at(name)), "an object or null");
    return;
  }
  KeyReader rope(keys.at(name), absl::StrCat(name, "."), keys.first_error());
  config.rope_theta = rope.Positive("rope_theta", 1e12, config.rope_theta);
  rope.Only("partial_rotary_factor", 1.0);
  const char* kind = rope.Has("rope_type") ? "rope_type" : "type";
  const int choice = rope.Choice(kind, {"default", "linear", "llama3"}, 0);
  config.rope_scaling = static_cast<RopeScaling>(choice);
  if (config.rope_scaling == RopeScaling::kNone) return;
  config.rope_factor = rope.Positive("factor", 1e6);
  if (config.rope_scaling != RopeScaling::kLlama3) return;
  config.rope_low_freq_factor = rope.Positive("low_freq_factor", 1e6);
  config.rope_high_freq_factor = rope.Positive("high_freq_factor", 1e6);
  config.rope_original_max_position = rope.Int("original_max_position_embeddings", 1, kMaxPosition);
  if (config.rope_high_freq_factor <= config.rope_low_freq_factor) {
    rope.Refuse("high_freq_factor", absl::StrCat(config.rope_high_freq_factor),
                absl::StrCat("above low_freq_factor (", config.rope_low_freq_factor, ")"));
  }
}

// The names under which a family keeps its head counts and epsilon.
struct KeyNames {
  const char* heads = "num_attention_heads";
  const char* kv_heads = "num_key_value_heads";
  const char* epsilon = "rms_norm_eps";
};

void ReadShape(KeyReader& keys, const KeyNames& names, ModelConfig& config) {
  config.vocab_size = keys.Int("vocab_size", 1, kMaxVocab);
  config.hidden_size = keys.Int("hidden_size", 1, kMaxWidth);
  config.num_layers = keys.Int("num_hidden_layers", 1, kMaxLayers);
  config.num_heads = keys.Int(names.heads, 1, kMaxHeads);
  config.num_kv_heads = keys.Int(names.kv_heads, 1, kMaxHeads, config.num_heads);
  keys.Require(config.num_heads % config.num_kv_heads == 0, names.heads, config.num_heads,
               absl::StrCat("a multiple of ", names.kv_heads, " (", config.num_kv_heads, ")"));
  config.d_k = keys.Int("head_dim", 2, kMaxHeadDim, config.hidden_size / config.num_heads);
  keys.Require(config.d_k >= 2 && config.d_k % 2 == 0, "head_dim", config.d_k,
               absl::StrCat("an even number from 2 to ", kMaxHeadDim));
  config.d_v = config.d_k;
  config.max_position = keys.Int("max_position_embeddings", 1, kMaxPosition);
  config.rms_epsilon = static_cast<float>(keys.Positive(names.epsilon, 1.0));
}

// Settings of related models that would change what this one computes.
void RefuseVariants(KeyReader& keys) {
  keys.Only("attention_bias", false);
  keys.Only("mlp_bias", false);
  keys.Only("quantization_config", nullptr);
  keys.Only("partial_rotary_factor", 1.0);
  keys.Only("pretraining_tp", 1);
  if (keys.Bool("use_sliding_window", true)) keys.Only("sliding_window", nullptr);
}

void ReadCommon(KeyReader& keys, const KeyNames& names, ModelConfig& config) {
  ReadShape(keys, names, config);
  config.rope_theta = keys.Positive("rope_theta", 1e12, config.rope_theta);
  ReadRopeObject(keys, "rope_scaling", config);
  ReadRopeObject(keys, "rope_parameters", config);
  config.tie_embeddings = keys.Bool("tie_word_embeddings", false);
  config.weights_dtype = keys.Text(keys.Has("torch_dtype") ? "torch_dtype" : "dtype");
  ReadTokenIds(keys, config);
  RefuseVariants(keys);
}

// What the kernels need of a sparse model; `span_key` is the file's name for the span.
void CheckSpanElements(KeyReader& keys, const char* span_key, const ModelConfig& config) {
  // A head_dim of 0, where the file does not say it, has been refused, but the checks go on.
  const int64_t limit = kMaxSpanElements / std::max({int64_t{1}, config.d_k, config.d_v});
  const int64_t span_tokens = config.nsa->shape.span_tokens;
  keys.Require(span_tokens <= limit, span_key, span_tokens,
               absl::StrCat("at most ", limit, " with this head_dim"));
}

void CheckSparseShape(KeyReader& keys, const NsaShape& shape) {
  const std::string stride = absl::StrCat("a multiple of span_stride (", shape.span_stride, ")");
  keys.Require(shape.span_tokens % shape.span_stride == 0, "span_tokens", shape.span_tokens,
               stride);
  keys.Require(shape.block_tokens % shape.span_stride == 0, "block_tokens", shape.block_tokens,
               stride);
  keys.Require(shape.span_tokens <= shape.block_tokens, "span_tokens", shape.span_tokens,
               absl::StrCat("at most block_tokens (", shape.block_tokens, ")"));
  keys.Require(shape.num_initial + shape.num_local <= shape.num_selected, "num_selected",
               shape.num_selected,
               absl::StrCat("at least num_initial + num_local (", shape.num_initial, " + ",
                            shape.num_local, ")"));
}

// ---- one function per architecture --------------------------------------------------------------

void ParseLlama(KeyReader& keys, ModelConfig& config) {
  ReadCommon(keys, {}, config);
  config.intermediate_size = keys.Int("intermediate_size", 1, kMaxWidth);
  keys.Only("hidden_act", "silu");
}

void ParseNsaPaper(KeyReader& keys, ModelConfig& config) {
  ParseLlama(keys, config);
  NsaConfig& nsa = config.nsa.emplace();
  if (!keys.Has("nsa_config") || !keys.at("nsa_config").is_object()) {
    keys.Refuse("nsa_config", keys.Has("nsa_config") ? Found(keys.at("nsa_config")) : "missing",
                "an object with the sparse settings");
    return;
  }
  KeyReader sparse(keys.at("nsa_config"), "nsa_config.", keys.first_error());
  sparse.RefuseUnknownKeys({"span_tokens", "span_stride", "block_tokens", "num_selected",
                            "num_initial", "num_local", "window_tokens", "phi", "phi_hidden",
                            "cmp_rope", "cmp_position", "shared_kv", "v_head_dim"});
  nsa.shape.span_tokens = sparse.Int("span_tokens", 1, kMaxBlockTokens);
  nsa.shape.span_stride = sparse.Int("span_stride", 1, kMaxBlockTokens);
  nsa.shape.block_tokens = sparse.Int("block_tokens", 1, kMaxBlockTokens);
  nsa.shape.num_selected = sparse.Int("num_selected", 1, kMaxSelected);
  nsa.shape.num_initial = sparse.Int("num_initial", 0, kMaxSelected);
  nsa.shape.num_local = sparse.Int("num_local", 0, kMaxSelected);
  nsa.shape.window_tokens = sparse.Int("window_tokens", 1, kMaxPosition);
  CheckSparseShape(sparse, nsa.shape);
  nsa.phi = static_cast<PhiKind>(sparse.Choice("phi", {"mean", "weighted_pool", "linear", "mlp"}));
  if (nsa.phi == PhiKind::kMlp) nsa.phi_hidden = sparse.Int("phi_hidden", 1, kMaxPhiHidden);
  nsa.cmp_rope = static_cast<CmpRope>(sparse.Choice("cmp_rope", {"before", "after", "none"}));
  nsa.has_position = sparse.Bool("cmp_position");
  nsa.shared_kv = sparse.Bool("shared_kv");
  config.d_v = sparse.Int("v_head_dim", 1, kMaxHeadDim, config.d_k);
  CheckSpanElements(sparse, "span_tokens", config);
  // With one shared stream the cache holds rotated keys only, so there are no others to pool.
  if (nsa.shared_kv) sparse.Only("cmp_rope", "before");
}

// The settings that flash-linear-attention's layer fixes: spans, strides and blocks are one thing.
void ReadBlockSettings(KeyReader& keys, int64_t num_initial, int64_t num_local,
                       ModelConfig& config) {
  NsaShape& shape = config.nsa.emplace().shape;
  shape.block_tokens = keys.Int("block_size", 1, kMaxBlockTokens);
  shape.span_tokens = shape.block_tokens;
  shape.span_stride = shape.block_tokens;
  shape.num_selected = keys.Int("block_counts", num_initial + num_local, kMaxSelected);
  shape.num_initial = num_initial;
  shape.num_local = num_local;
  shape.window_tokens = keys.Int("window_size", 1, kMaxPosition);
  CheckSpanElements(keys, "block_size", config);
}

void ParseLlamaNsa(KeyReader& keys, ModelConfig& config) {
  ParseLlama(keys, config);
  ReadBlockSettings(keys, /*num_initial=*/0, /*num_local=*/1, config);
}

// fla's rule for an MLP whose width is not given: 2/3 of hidden_ratio * hidden_size, rounded up to
// a multiple of 256.
int64_t FlaMlpWidth(KeyReader& keys, const ModelConfig& config) {
  if (keys.Has("intermediate_size")) return keys.Int("intermediate_size", 1, kMaxWidth);
  const int64_t ratio = keys.Int("hidden_ratio", 1, 64, 4);
  return (config.hidden_size * ratio * 2 / 3 + 255) / 256 * 256;
}

void ParseFlaNsa(KeyReader& keys, ModelConfig& config) {
  ReadCommon(keys, {.heads = "num_heads", .kv_heads = "num_kv_heads", .epsilon = "norm_eps"},
             config);
  config.intermediate_size = FlaMlpWidth(keys, config);
  ReadBlockSettings(keys, /*num_initial=*/1, /*num_local=*/2, config);
  keys.Choice("hidden_act", {"swish", "silu"}, 0);
  keys.Only("qkv_bias", false);
  keys.Only("elementwise_affine", true);
}

struct ArchitectureParser {
  const char* name;
  const char* model_type;  // of its files, if they say one
  void (*parse)(KeyReader& keys, ModelConfig& config);
};
constexpr ArchitectureParser kParsers[] = {
    {"NsaForCausalLM", "nsa", ParseNsaPaper},
    {"LlamaNSAForCausalLM", "llama-nsa", ParseLlamaNsa},
    {"NSAForCausalLM", "nsa", ParseFlaNsa},
    {"LlamaForCausalLM", "llama", ParseLlama},
};

absl::StatusOr<std::string> ReadArchitecture(const Json& root) {
  const auto found = root.find("architectures");
  if (found == root.end() || !found->is_array() || found->empty() || !(*found)[0].is_string()) {
    return absl::InvalidArgumentError(
        "config.json: architectures is missing; allowed: a list with one name");
  }
  return (*found)[0].get<std::string>();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json_text) {
  const Json root = Json::parse(json_text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return absl::InvalidArgumentError("config.json: not a JSON object");
  ModelConfig config;
  NSA_ASSIGN_OR_RETURN(config.architecture, ReadArchitecture(root));
  std::vector<std::string> known;
  for (const ArchitectureParser& parser : kParsers) {
    known.push_back(parser.name);
    if (config.architecture != parser.name) continue;
    absl::Status error;
    KeyReader keys(root, "", &error);
    keys.Only("model_type", parser.model_type);
    parser.parse(keys, config);
    if (!error.ok()) return error;
    return config;
  }
  return absl::UnimplementedError(absl::StrCat("config.json: architectures[0] is \"",
                                               config.architecture.substr(0, 80),
                                               "\"; supported: ", absl::StrJoin(known, ", ")));
}

}  // namespace nsa
