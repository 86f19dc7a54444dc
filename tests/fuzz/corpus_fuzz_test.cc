// Replays the corpora of all fuzz targets: seeds written by hand, and inputs that once failed.

#include <filesystem>
#include <fstream>
#include <iterator>

#include "gtest/gtest.h"
#include "tests/fuzz/targets.h"

namespace nsa::fuzz {
namespace {

struct Target {
  const char* corpus;
  void (*run)(std::string_view input);
};

class CorpusFuzzTest : public testing::TestWithParam<Target> {};

std::string ReadBytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Each file, and each of its beginnings, of which an input of some length has very many.
TEST_P(CorpusFuzzTest, Replays) {
  constexpr size_t kMaxBeginnings = 200;
  int num_files = 0;
  const auto folder = std::filesystem::path("tests/fuzz/corpus") / GetParam().corpus;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path().string());
    const std::string input = ReadBytes(entry.path());
    ++num_files;
    GetParam().run(input);
    const size_t stride = input.size() / kMaxBeginnings + 1;
    for (size_t num_bytes = 0; num_bytes < input.size(); num_bytes += stride) {
      GetParam().run(std::string_view(input).substr(0, num_bytes));
    }
  }
  EXPECT_GT(num_files, 1);
}

INSTANTIATE_TEST_SUITE_P(
    Targets, CorpusFuzzTest,
    testing::Values(Target{"chat_request", ChatRequest}, Target{"chat_template", ChatTemplate},
                    Target{"completion_request", CompletionRequest},
                    Target{"detokenizer", Detokenizer}, Target{"grpc_request", GrpcRequest},
                    Target{"hf_tokenizer", HfTokenizer}, Target{"http_framing", HttpFraming},
                    Target{"json_schema", JsonSchema}, Target{"model_config", ModelConfig},
                    Target{"regex_constraint", RegexConstraint}, Target{"safetensors", Safetensors},
                    Target{"sentence_piece", SentencePiece}, Target{"text_config", TextConfig}),
    [](const auto& info) { return std::string(info.param.corpus); });

}  // namespace
}  // namespace nsa::fuzz
