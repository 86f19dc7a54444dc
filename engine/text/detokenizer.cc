#include "engine/text/detokenizer.h"

#include <string_view>

namespace nsa {

std::string IncrementalDetokenizer::Push(int32_t token) {
  const std::string bytes = tokenizer_->TokenBytes(token);
  std::string_view rest = bytes;
  if (drop_leading_space_ && !rest.empty()) {
    if (rest.front() == ' ') rest.remove_prefix(1);
    drop_leading_space_ = false;
  }
  return stream_.Push(rest);
}

}  // namespace nsa
