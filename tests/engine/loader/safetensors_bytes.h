#pragma once
// Makes the bytes of a safetensors file from its header's text.

#include <cstdint>
#include <string>
#include <vector>

namespace nsa {

// The header's length, the header, then num_data_bytes bytes that count up from 0.
inline std::vector<uint8_t> SafetensorsBytes(const std::string& header, size_t num_data_bytes) {
  std::vector<uint8_t> file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<uint8_t>(header.size() >> (8 * i)));
  file.insert(file.end(), header.begin(), header.end());
  for (size_t i = 0; i < num_data_bytes; ++i) file.push_back(static_cast<uint8_t>(i));
  return file;
}

}  // namespace nsa
