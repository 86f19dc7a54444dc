#pragma once
// Edits of one row of logits, in place.

#include <cstdint>
#include <span>

#include "kernels/logit_edits.h"

namespace nsa::cpu {

// Edits or a mask that are not there, or a token that is none of the row's: programmer errors.
void EditRow(const LogitEdits& edits, int64_t edited_row, std::span<float> logits);

}  // namespace nsa::cpu
