# Compiler settings that every target of ours shares: link `pensieve_options`.
add_library(pensieve_options INTERFACE)
target_include_directories(pensieve_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_definitions(pensieve_options INTERFACE PENSIEVE_VERSION="${PROJECT_VERSION}")
target_compile_options(pensieve_options INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror
  # g++ 12 warns inside its own headers and inside inlined Boost coroutines at -O2.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
  # clang, which only fuzzes here, warns inside g++ 12's headers.
  $<$<CXX_COMPILER_ID:Clang>:-Wno-deprecated-declarations>)
if(PENSIEVE_SANITIZE MATCHES thread)
  # Asio's fences are not seen by ThreadSanitizer; g++ warns of each.
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
endif()
if(PENSIEVE_SANITIZE)
  target_compile_options(pensieve_options INTERFACE
    -fsanitize=${PENSIEVE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(pensieve_options INTERFACE -fsanitize=${PENSIEVE_SANITIZE})
endif()

# pensieve_library(folder SOURCES... LINKS...): one src/ folder is one library, and what it links
# is what it may include; ./dev check compares this with the table in ARCHITECTURE.md.
function(pensieve_library folder)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_library(pensieve_${folder} STATIC ${ARG_SOURCES})
  target_link_libraries(pensieve_${folder} PUBLIC pensieve_options ${ARG_LINKS})
endfunction()

# Debian's spdlog is not built for ThreadSanitizer, which then sees races inside it.
if(PENSIEVE_SANITIZE MATCHES thread)
  set(pensieve_test_environment
      ENVIRONMENT "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/cmake/tsan.supp")
endif()

# pensieve_test(folder SOURCES... LINKS...): one test program per folder.
function(pensieve_test folder)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${folder}_test ${ARG_SOURCES})
  target_link_libraries(${folder}_test PRIVATE pensieve_${folder} ${ARG_LINKS} GTest::gtest_main)
  gtest_discover_tests(${folder}_test TEST_PREFIX ${folder}. DISCOVERY_TIMEOUT 60
                       PROPERTIES TIMEOUT 120 ${pensieve_test_environment})
endfunction()
