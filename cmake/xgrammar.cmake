# xgrammar: built once into the cache by scripts/setup/xgrammar.sh (pinned version and hash there);
# here its static library becomes the target `xgrammar`.
if(NOT PENSIEVE_XGRAMMAR_PREFIX)
  execute_process(COMMAND ${CMAKE_SOURCE_DIR}/scripts/setup/xgrammar.sh
                  OUTPUT_VARIABLE PENSIEVE_XGRAMMAR_PREFIX OUTPUT_STRIP_TRAILING_WHITESPACE
                  RESULT_VARIABLE xgrammar_setup_failed)
  if(xgrammar_setup_failed)
    message(FATAL_ERROR "xgrammar is not there and could not be built; see the lines above, "
                        "or configure with -DPENSIEVE_ENGINE_LLAMA=OFF")
  endif()
endif()
message(STATUS "xgrammar: ${PENSIEVE_XGRAMMAR_PREFIX}")

set(xgrammar_source ${PENSIEVE_XGRAMMAR_PREFIX}/source)
add_library(xgrammar INTERFACE)
target_include_directories(xgrammar SYSTEM INTERFACE
  ${xgrammar_source}/include ${xgrammar_source}/3rdparty/picojson
  ${xgrammar_source}/3rdparty/dlpack/include)
target_link_libraries(xgrammar INTERFACE
  ${PENSIEVE_XGRAMMAR_PREFIX}/build/libxgrammar.a Threads::Threads)
