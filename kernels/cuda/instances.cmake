# The dtypes x head dims (of keys/of values) that Hopper's attention kernels are compiled for, and the only list of
# them: decode for up to 16 query heads to a KV head, prefill for 16. Other operands run on the portable kernels, so a
# build for one model may have a shorter list here.
set(NSA_CUDA_DTYPES bf16 f16)
set(NSA_CUDA_HEAD_DIMS 64/64 128/128 192/128)

set(element_bf16 "__nv_bfloat16, kBF16")
set(element_f16 "__half, kF16")
set(instances "")
foreach(dtype ${NSA_CUDA_DTYPES})
  foreach(dims ${NSA_CUDA_HEAD_DIMS})
    string(REPLACE "/" ", " dims ${dims})
    string(APPEND instances " \\\n  X(${element_${dtype}}, ${dims})")
  endforeach()
endforeach()
set(NSA_CUDA_GENERATED ${PROJECT_BINARY_DIR}/generated/cuda)
set(instances "// From instances.cmake. X(element type, DType, d_k, d_v)\n#define NSA_CUDA_INSTANCES(X)${instances}\n")
file(CONFIGURE OUTPUT ${NSA_CUDA_GENERATED}/kernels/cuda/instance_list.h CONTENT "@instances@" @ONLY)
