# The CUDA toolkit and the flags of CUDA sources. Included where NSA_CUDA is on; nothing else of the build depends on CUDA.

set(NSA_CUDA_ARCHITECTURES "80;90-real" CACHE STRING
    "GPUs of the portable kernels: 80 is code for sm_80 and PTX for everything later, 90-real spares Hopper its translation")
option(NSA_RACECHECK "Every lane arrives on a barrier, not one for its warp: for compute-sanitizer's racecheck" OFF)
set(CMAKE_CUDA_ARCHITECTURES ${NSA_CUDA_ARCHITECTURES})
if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
  set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
endif()
enable_language(CUDA)
# CMake of Debian 12 does not know that this nvcc has C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_EXTENSIONS OFF)
find_package(CUDAToolkit 12.4 REQUIRED)
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
# Programs look beside themselves first, so that `make bundle` can put libraries there. DT_RPATH, not DT_RUNPATH: it also
# holds for the libraries that those libraries load.
set(CMAKE_BUILD_RPATH "$ORIGIN/../lib" "$ORIGIN/../../lib")
add_link_options(LINKER:--disable-new-dtags)

include(${PROJECT_SOURCE_DIR}/kernels/cuda/instances.cmake)

# nsa_cuda_objects(name ARCHITECTURES 90a-real ... SOURCES a.cu ...): objects for one set of GPUs, which
# $<TARGET_OBJECTS:name> puts into a library.
function(nsa_cuda_objects name)
  cmake_parse_arguments(ARG "" "" "ARCHITECTURES;SOURCES" ${ARGN})
  add_library(${name} OBJECT ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES CUDA_ARCHITECTURES "${ARG_ARCHITECTURES}")
  target_link_libraries(${name} PRIVATE nsa_flags nsa_base CUDA::cudart_static CUDA::cublasLt)
  target_include_directories(${name} PRIVATE ${NSA_CUDA_GENERATED})
  target_compile_definitions(${name} PRIVATE $<$<BOOL:${NSA_RACECHECK}>:NSA_RACECHECK>)
  # The line of every instruction costs nothing at run time and names the line in sanitizer reports.
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -lineinfo>)
endfunction()
