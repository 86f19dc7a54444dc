#pragma once
// What a request asks for beyond the model's logits: penalties, biases, forbidden tokens.

#include <cstdint>

#include "base/tensor_view.h"
#include "kernels/device.h"

namespace nsa {

// logit = (logit > 0 ? logit / factor : logit * factor) + shift
struct LogitEdit {
  int32_t token = 0;
  float factor = 1;  // > 0
  float shift = 0;   // -inf forbids the token
};

// Copies rows of logits and edits the copies: first the tokens that a row's mask leaves out become
// -inf, then the row's edits, which name every token at most once.
struct EditLogitsArgs {
  TensorView logits;    // [N, vocab] f32
  TensorView rows;      // [E] i32 in [0, N): which rows
  TensorView edit_end;  // [E] i32, ascending: row e has edits [edit_end[e - 1], edit_end[e])
  TensorView edits;     // [M * sizeof(LogitEdit)] u8
  TensorView mask_of;   // [E] i32: the row's mask, or -1
  TensorView masks;     // [K, ceil(vocab / 32)] i32: bit v % 32 of word v / 32 allows token v
  TensorView out;       // [E, vocab] f32
};
void EditLogits(const EditLogitsArgs& args, const Stream& stream);

// Words of a mask.
inline int64_t NumMaskWords(int64_t vocab_size) { return (vocab_size + 31) / 32; }

}  // namespace nsa
