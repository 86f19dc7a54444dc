#include "engine/attention/attention.h"

#include "engine/runtime/uploader.h"

namespace nsa {

DeviceBuffer RopeFrequenciesOn(const ModelConfig& config, Device* device) {
  const std::vector<float> frequencies = RopeFrequencies(config);
  return CopyToDevice(frequencies.data(), static_cast<int64_t>(frequencies.size() * sizeof(float)),
                      device);
}

}  // namespace nsa
