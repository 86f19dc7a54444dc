#pragma once
// The shapes over which the NSA operations are tested.

#include <vector>

#include "tests/kernels/attention_world.h"
#include "tests/support/test_device.h"

namespace nsa::testing {

inline constexpr NsaShape kPaperShape{32, 16, 64, 16, 1, 2, 512};
// Small enough for lists to overflow at a few hundred tokens.
inline constexpr NsaShape kSmallPaperShape{32, 16, 64, 4, 1, 2, 96};
inline constexpr NsaShape kLlamaNsaShape{16, 16, 16, 5, 1, 2, 48};
inline constexpr NsaShape kTinyShape{8, 4, 16, 6, 1, 2, 20};
inline constexpr NsaShape kUnpooledStrideShape{64, 64, 64, 3, 1, 2, 64};
// Blocks whose rows are theirs alone; blocks of which only a query's own is forced.
inline constexpr NsaShape kNoOverlapShape{16, 16, 64, 4, 1, 2, 96};
inline constexpr NsaShape kOneForcedShape{32, 16, 64, 4, 0, 1, 96};
// Span equal to block, stride 1/4 of it, and blocks that are no multiple of a tile.
inline constexpr NsaShape kWideSpanShape{24, 6, 24, 4, 1, 1, 25};

inline std::vector<Geometry> CpuGeometries() {
  constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16;
  return {
      {"PaperG16D128Bf16", kPaperShape, 1, 16, 128, 128, kBF16},
      {"SmallPaperG16D64F32", kSmallPaperShape, 2, 16, 64, 64, kF32},
      {"SmallPaperG12D192x128Bf16", kSmallPaperShape, 1, 12, 192, 128, kBF16},
      {"SmallPaperG64D64Bf16", kSmallPaperShape, 1, 64, 64, 64, kBF16},
      {"SmallPaperG80D16F32", kSmallPaperShape, 1, 80, 16, 16, kF32},
      {"LlamaNsaG16D64Bf16", kLlamaNsaShape, 1, 16, 64, 64, kBF16},
      {"LlamaNsaG8D64F32", kLlamaNsaShape, 2, 8, 64, 64, kF32},
      {"TinyG1D64F32", kTinyShape, 3, 1, 64, 64, kF32},
      {"TinyG3D5x7F32", kTinyShape, 2, 3, 5, 7, kF32},
      {"TinyG3D6x1Bf16", kTinyShape, 2, 3, 6, 1, kBF16},
      {"TinyG5D33x17Bf16", kTinyShape, 1, 5, 33, 17, kBF16},
      {"UnpooledStrideG8D128F32", kUnpooledStrideShape, 1, 8, 128, 128, kF32},
      {"WideSpanG3D20x36F32", kWideSpanShape, 1, 3, 20, 36, kF32},
  };
}

// Those of every device of the build, and on a GPU activations of other dtypes too.
inline std::vector<Geometry> AttentionGeometries() {
  std::vector<Geometry> geometries = CpuGeometries();
  if (BuildDevices().size() == 1) return geometries;
  for (Geometry geometry : CpuGeometries()) {
    geometry.name += "Cuda";
    geometry.device = DeviceType::kCuda;
    geometries.push_back(geometry);
  }
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const std::string name = dtype == DType::kBF16 ? "AllBf16Cuda" : "AllF16Cuda";
    geometries.push_back({"SmallPaperG16D128" + name, kSmallPaperShape, 2, 16, 128, 128, dtype,
                          DeviceType::kCuda, dtype});
    geometries.push_back(
        {"TinyG3D6x5" + name, kTinyShape, 2, 3, 6, 5, dtype, DeviceType::kCuda, dtype});
  }
  return geometries;
}

}  // namespace nsa::testing
