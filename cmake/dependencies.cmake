# Every outside library, found once. docs/dependencies.md says why each is here.

find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(Boost 1.74 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(utf8proc REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(hwy REQUIRED IMPORTED_TARGET libhwy)
find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
if(NSA_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(NSA_BUILD_BENCH)
  find_package(benchmark REQUIRED)
endif()

# nsa_grpcpp: gRPC for C++, its reflection service and Protocol Buffers.
# Debian's SentencePiece exports an older copy of Protocol Buffers of its own, and two copies in one process's symbol
# table crash before main. So ours is linked from static archives and its symbols stay inside the executable; gRPC's
# core, which does not use Protocol Buffers' library, stays shared. The archives must stand before SentencePiece on the
# command line, or the linker takes what it can from the older copy: the imported archive says that it depends on
# SentencePiece, and --as-needed drops that where nothing else does. Where the archives are missing (and SentencePiece,
# one hopes, shares Protocol Buffers with gRPC) the shared libraries are used.
add_library(nsa_grpcpp INTERFACE)
find_library(GRPCPP_ARCHIVE libgrpc++.a)
find_library(GRPCPP_REFLECTION_ARCHIVE libgrpc++_reflection.a)
find_library(PROTOBUF_ARCHIVE libprotobuf.a)
if(GRPCPP_ARCHIVE AND GRPCPP_REFLECTION_ARCHIVE AND PROTOBUF_ARCHIVE)
  add_library(nsa_protobuf_archive STATIC IMPORTED GLOBAL)
  set_target_properties(nsa_protobuf_archive PROPERTIES IMPORTED_LOCATION ${PROTOBUF_ARCHIVE})
  target_link_libraries(nsa_protobuf_archive INTERFACE PkgConfig::sentencepiece Threads::Threads)
  add_library(nsa_grpcpp_archive STATIC IMPORTED GLOBAL)
  set_target_properties(nsa_grpcpp_archive PROPERTIES IMPORTED_LOCATION ${GRPCPP_ARCHIVE})
  target_link_libraries(nsa_grpcpp_archive INTERFACE nsa_protobuf_archive gRPC::grpc gRPC::gpr absl::cord
                                                     absl::synchronization absl::status absl::statusor)
  add_library(nsa_reflection_archive STATIC IMPORTED GLOBAL)
  set_target_properties(nsa_reflection_archive PROPERTIES IMPORTED_LOCATION ${GRPCPP_REFLECTION_ARCHIVE})
  target_link_libraries(nsa_reflection_archive INTERFACE nsa_grpcpp_archive)
  target_link_libraries(nsa_grpcpp INTERFACE nsa_reflection_archive)
  # Under clang a sanitizer's runtime is an archive too, and the shared libraries must find its malloc.
  set(hidden_archives ALL)
  if(NSA_FUZZ)
    set(hidden_archives libgrpc++.a:libgrpc++_reflection.a:libprotobuf.a:libnsa_proto.a:libnsa_grpc.a:libnsa_fuzz_targets.a)
  endif()
  target_link_options(nsa_grpcpp INTERFACE -Wl,--as-needed -Wl,--exclude-libs,${hidden_archives})
else()
  target_link_libraries(nsa_grpcpp INTERFACE gRPC::grpc++ gRPC::grpc++_reflection protobuf::libprotobuf)
endif()
