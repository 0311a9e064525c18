# llama.cpp: built once into the cache by scripts/setup/llama.sh (pinned version and hash there);
# here its static libraries become the target `llama_cpp`.
if(NOT PENSIEVE_LLAMA_PREFIX)
  execute_process(COMMAND ${CMAKE_SOURCE_DIR}/scripts/setup/llama.sh
                  OUTPUT_VARIABLE PENSIEVE_LLAMA_PREFIX OUTPUT_STRIP_TRAILING_WHITESPACE
                  RESULT_VARIABLE llama_setup_failed)
  if(llama_setup_failed)
    message(FATAL_ERROR "llama.cpp is not there and could not be built; see the lines above, "
                        "or configure with -DPENSIEVE_ENGINE_LLAMA=OFF")
  endif()
endif()
message(STATUS "llama.cpp: ${PENSIEVE_LLAMA_PREFIX}")

set(llama_source ${PENSIEVE_LLAMA_PREFIX}/source)
set(llama_build ${PENSIEVE_LLAMA_PREFIX}/build)
add_library(llama_cpp INTERFACE)
target_include_directories(llama_cpp SYSTEM INTERFACE
  ${llama_source}/include ${llama_source}/ggml/include ${llama_source}/common
  ${llama_source}/vendor ${llama_source}/src ${llama_source}/tools/mtmd)
# The order is the link order: a library stands before those that it uses.
target_link_libraries(llama_cpp INTERFACE
  ${llama_build}/tools/mtmd/libmtmd.a
  ${llama_build}/vendor/hash/libvendor-hash.a
  ${llama_build}/common/libllama-common.a
  ${llama_build}/common/libllama-common-base.a
  ${llama_build}/vendor/cpp-httplib/libcpp-httplib.a
  ${llama_build}/src/libllama.a
  ${llama_build}/ggml/src/libggml.a
  ${llama_build}/ggml/src/libggml-cpu.a
  ${llama_build}/ggml/src/libggml-base.a
  Threads::Threads ${CMAKE_DL_LIBS} m)
