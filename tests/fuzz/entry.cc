// libFuzzer's entry into the target that the build names.

#include <cstddef>
#include <cstdint>

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  nsa::fuzz::NSA_FUZZ_TARGET({reinterpret_cast<const char*>(data), num_bytes});
  return 0;
}
