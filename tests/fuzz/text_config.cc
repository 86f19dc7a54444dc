#include "engine/text/text_config.h"

#include "tests/fuzz/targets.h"

namespace nsa::fuzz {

void TextConfig(std::string_view input) {
  (void)ParseTokenizerConfig(input);
  (void)ParseGenerationConfig(input);
}

}  // namespace nsa::fuzz
