#include "kernels/philox.h"
#include "kernels/sampling.h"

namespace nsa {

double UniformAt(uint64_t seed, uint64_t position) {
  return UniformFromBits(PhiloxBits(seed, position));
}

}  // namespace nsa
