# Flags of every target. nsa_flags is linked by each library and executable of the project.

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
find_program(MOLD NAMES mold ld.lld)
if(MOLD MATCHES "ld.lld$")
  add_link_options(-fuse-ld=lld)
elseif(MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_library(nsa_flags INTERFACE)
target_include_directories(nsa_flags INTERFACE ${CMAKE_SOURCE_DIR})
# -ffp-contract=off: a*b+c is fused only where a kernel says so, so that two code paths of one function give the same
# bits whatever the compiler inlines.
target_compile_options(nsa_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror -Wnon-virtual-dtor -Wno-missing-field-initializers -ffp-contract=off>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Werror,-Wno-missing-field-initializers>)
if(NSA_SANITIZE)
  target_compile_options(nsa_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${NSA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all>)
  target_link_options(nsa_flags INTERFACE -fsanitize=${NSA_SANITIZE})
endif()

# nsa_library(name SOURCES a.cc ... DEPS lib ...): a static library with the project's flags.
function(nsa_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC nsa_flags ${ARG_DEPS})
endfunction()

# nsa_executable(name SOURCES ... DEPS ...)
function(nsa_executable name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE nsa_flags ${ARG_DEPS})
endfunction()

# nsa_test(name SOURCES ... DEPS ...): one GoogleTest executable per folder; run from the source root.
function(nsa_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  nsa_executable(${name} SOURCES ${ARG_SOURCES} DEPS ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin/tests)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
endfunction()

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
