#pragma once
// What a request asks for beyond the model's logits: penalties, biases, forbidden tokens.

#include <cstdint>

#include "base/tensor_view.h"

namespace nsa {

struct LogitEdit {
  int32_t token = 0;
  float factor = 1;  // > 0
  float shift = 0;   // -inf forbids the token
};

// A logit of the edit's token, edited; for code of every device.
constexpr float EditedLogit(const LogitEdit& edit, float logit) {
  return (logit > 0 ? logit / edit.factor : logit * edit.factor) + edit.shift;
}

// Edits of E rows of logits: first the tokens that a row's mask leaves out become -inf, then come
// the row's edits, which name every token at most once. A GPU may read them from pinned host
// memory.
struct LogitEdits {
  TensorView edit_end;  // [E] i32, ascending: row e has edits [edit_end[e - 1], edit_end[e])
  TensorView edits;     // [M * sizeof(LogitEdit)] u8
  TensorView masks;     // [E, ceil(vocab / 32)] i32: bit v % 32 of word v / 32 allows token v;
                        // [0, ceil(vocab / 32)]: no row has a mask
};

// Words of a mask.
constexpr int64_t NumMaskWords(int64_t vocab_size) { return (vocab_size + 31) / 32; }

}  // namespace nsa
