#pragma once
// Tensor-core products of a warpgroup (wgmma, sm_90a): d[64 x N] (+)= a[64 x 16] b[16 x N], 16-bit
// operands, fp32 sums. All 128 threads of a warpgroup call each function together.
//
// A thread is lane l of warp w of its warpgroup. With g = l / 4 and c = l % 4 * 2 it holds
//   d[4 i + 0..3]: (16 w + g, 8 i + c), (.., 8 i + c + 1), (16 w + g + 8, 8 i + c), (.., 8 i + c +
//   1) a in registers: rows 16 w + g, + 8 at columns c, c + 1, then the same at columns c + 8, c +
//   9:
// so the d of one product, packed in pairs, is the a of the next.
//
// Order of calls: FenceWgmma (after the last ordinary access to registers of d and a, and after
// shared memory is known to be filled), products, CommitWgmma, WaitWgmma. Until that wait the
// registers of d and a must not be touched.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace nsa::cuda {

__device__ __forceinline__ void FenceWgmma() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void CommitWgmma() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most kPending of the newest groups are still under way.
template <int kPending>
__device__ __forceinline__ void WaitWgmma() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Tells the compiler that these registers change here: keeps uses of accumulators behind the wait
// for the group that fills them.
template <int kSize>
__device__ __forceinline__ void PinRegisters(float (&d)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Descriptors of operands in shared memory: tiles of rows of 128 bytes (64 elements), 128-byte
// swizzled as the copy engine writes them, 1024-byte aligned.
//
// Contraction along the 128 bytes (a or b with rows = M or N, as K in Q K^T). Step k of 16 elements
// inside the tile is descriptor + 2 * k; further tiles are `rows * 128` bytes apart.
__device__ __forceinline__ uint64_t DescribeKMajor(uint32_t shared_address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kEightRows = uint64_t{1024 >> 4} << 32;
  return kSwizzle128 | kEightRows | (uint64_t{1} << 16) | ((shared_address & 0x3ffffu) >> 4);
}
// Contraction across the rows (b with rows = the contracted index, as V in P V): kTransposeB. Step
// k of 16 rows is descriptor + 128 * k. `bytes_to_next_tile`: from columns 0..63 to
// columns 64..127, that is rows * 128.
__device__ __forceinline__ uint64_t DescribeMnMajor(uint32_t shared_address,
                                                    uint32_t bytes_to_next_tile) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kEightRows = uint64_t{1024 >> 4} << 32;
  return kSwizzle128 | kEightRows | (uint64_t{bytes_to_next_tile >> 4} << 16) |
         ((shared_address & 0x3ffffu) >> 4);
}

enum class Layout : int { kKMajor = 0, kMnMajor = 1 };

#define NSA_ACC4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define NSA_ACC16(d, i) NSA_ACC4(d, i), NSA_ACC4(d, i + 4), NSA_ACC4(d, i + 8), NSA_ACC4(d, i + 12)
#define NSA_ACC64(d, i) \
  NSA_ACC16(d, i), NSA_ACC16(d, i + 16), NSA_ACC16(d, i + 32), NSA_ACC16(d, i + 48)

// Products of N = kN columns; `accumulate` false overwrites d. Shared: a is K-major.
template <typename T, int kN, Layout kLayoutB>
struct Wgmma;

#define NSA_DEFINE_WGMMA(N)                                                                     \
  template <typename T, Layout kLayoutB>                                                        \
  struct Wgmma<T, N, kLayoutB> {                                                                \
    static __device__ __forceinline__ void Shared(float (&d)[N / 2], uint64_t a, uint64_t b,    \
                                                  bool accumulate) {                            \
      if constexpr (std::is_same_v<T, __half>) {                                                \
        NSA_WGMMA_N##N("f16");                                                                  \
      } else {                                                                                  \
        NSA_WGMMA_N##N("bf16");                                                                 \
      }                                                                                         \
    }                                                                                           \
    static __device__ __forceinline__ void Registers(float (&d)[N / 2], const uint32_t (&a)[4], \
                                                     uint64_t b, bool accumulate) {             \
      if constexpr (std::is_same_v<T, __half>) {                                                \
        NSA_WGMMA_REG_N##N("f16");                                                              \
      } else {                                                                                  \
        NSA_WGMMA_REG_N##N("bf16");                                                             \
      }                                                                                         \
    }                                                                                           \
  };

#define NSA_WGMMA_N16(TYPE)                                       \
  asm volatile(                                                   \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %10, 0;\n"                \
      "wgmma.mma_async.sync.aligned.m64n16k16.f32." TYPE "." TYPE \
      "\n"                                                        \
      "{%0, %1, %2, %3, %4, %5, %6, %7},"                         \
      "\n%8, %9, p, 1, 1, 0, %11;\n}"                             \
      : NSA_ACC4(d, 0), NSA_ACC4(d, 4)                            \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(kLayoutB)))
#define NSA_WGMMA_REG_N16(TYPE)                                                                \
  asm volatile(                                                                                \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %13, 0;\n"                                             \
      "wgmma.mma_async.sync.aligned.m64n16k16.f32." TYPE "." TYPE                              \
      "\n"                                                                                     \
      "{%0, %1, %2, %3, %4, %5, %6, %7},"                                                      \
      "\n{%8, %9, %10, %11}, %12, p, 1, 1, %14;\n}"                                            \
      : NSA_ACC4(d, 0), NSA_ACC4(d, 4)                                                         \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), \
        "n"(static_cast<int>(kLayoutB)))
NSA_DEFINE_WGMMA(16)

#define NSA_WGMMA_N32(TYPE)                                                     \
  asm volatile(                                                                 \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"                              \
      "wgmma.mma_async.sync.aligned.m64n32k16.f32." TYPE "." TYPE               \
      "\n"                                                                      \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}," \
      "\n%16, %17, p, 1, 1, 0, %19;\n}"                                         \
      : NSA_ACC16(d, 0)                                                         \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(kLayoutB)))
#define NSA_WGMMA_REG_N32(TYPE)                                                                \
  asm volatile(                                                                                \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %21, 0;\n"                                             \
      "wgmma.mma_async.sync.aligned.m64n32k16.f32." TYPE "." TYPE                              \
      "\n"                                                                                     \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15},"                \
      "\n{%16, %17, %18, %19}, %20, p, 1, 1, %22;\n}"                                          \
      : NSA_ACC16(d, 0)                                                                        \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), \
        "n"(static_cast<int>(kLayoutB)))
NSA_DEFINE_WGMMA(32)

#define NSA_WGMMA_N64(TYPE)                                                               \
  asm volatile(                                                                           \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                        \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                         \
      "\n"                                                                                \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"            \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}," \
      "\n%32, %33, p, 1, 1, 0, %35;\n}"                                                   \
      : NSA_ACC16(d, 0), NSA_ACC16(d, 16)                                                 \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(kLayoutB)))
#define NSA_WGMMA_REG_N64(TYPE)                                                                \
  asm volatile(                                                                                \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"                                             \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                              \
      "\n"                                                                                     \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"                 \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31},"      \
      "\n{%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}"                                          \
      : NSA_ACC16(d, 0), NSA_ACC16(d, 16)                                                      \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), \
        "n"(static_cast<int>(kLayoutB)))
NSA_DEFINE_WGMMA(64)

#define NSA_WGMMA_N128(TYPE)                                                              \
  asm volatile(                                                                           \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                        \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE                        \
      "\n"                                                                                \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"            \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"  \
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"  \
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}," \
      "\n%64, %65, p, 1, 1, 0, %67;\n}"                                                   \
      : NSA_ACC64(d, 0)                                                                   \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(kLayoutB)))
#define NSA_WGMMA_REG_N128(TYPE)                                                               \
  asm volatile(                                                                                \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"                                             \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE                             \
      "\n"                                                                                     \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"                 \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"       \
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"       \
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63},"      \
      "\n{%64, %65, %66, %67}, %68, p, 1, 1, %70;\n}"                                          \
      : NSA_ACC64(d, 0)                                                                        \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), \
        "n"(static_cast<int>(kLayoutB)))
NSA_DEFINE_WGMMA(128)

#define NSA_WGMMA_N256(TYPE)                                                                    \
  asm volatile(                                                                                 \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"                                             \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPE "." TYPE                              \
      "\n"                                                                                      \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"                  \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"        \
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"        \
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63,"        \
      " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79,"        \
      " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95,"        \
      " %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, " \
      "%111,"                                                                                   \
      " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "   \
      "%126, %127},"                                                                            \
      "\n%128, %129, p, 1, 1, 0, %131;\n}"                                                      \
      : NSA_ACC64(d, 0), NSA_ACC64(d, 64)                                                       \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(kLayoutB)))
#define NSA_WGMMA_REG_N256(TYPE)                                                                \
  asm volatile(                                                                                 \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %133, 0;\n"                                             \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPE "." TYPE                              \
      "\n"                                                                                      \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"                  \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"        \
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"        \
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63,"        \
      " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79,"        \
      " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95,"        \
      " %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, " \
      "%111,"                                                                                   \
      " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "   \
      "%126, %127},"                                                                            \
      "\n{%128, %129, %130, %131}, %132, p, 1, 1, %134;\n}"                                     \
      : NSA_ACC64(d, 0), NSA_ACC64(d, 64)                                                       \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)),  \
        "n"(static_cast<int>(kLayoutB)))
NSA_DEFINE_WGMMA(256)

#undef NSA_WGMMA_N16
#undef NSA_WGMMA_REG_N16
#undef NSA_WGMMA_N32
#undef NSA_WGMMA_REG_N32
#undef NSA_WGMMA_N64
#undef NSA_WGMMA_REG_N64
#undef NSA_WGMMA_N128
#undef NSA_WGMMA_REG_N128
#undef NSA_WGMMA_N256
#undef NSA_WGMMA_REG_N256
#undef NSA_DEFINE_WGMMA
#undef NSA_ACC64
#undef NSA_ACC16
#undef NSA_ACC4

}  // namespace nsa::cuda
