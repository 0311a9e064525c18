# System packages (Debian names and versions: scripts/setup/packages.sh).
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(GTest REQUIRED)
find_path(TOMLPLUSPLUS_INCLUDE_DIR toml++/toml.h REQUIRED)
find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)
find_library(XXHASH_LIBRARY NAMES libxxhash.a xxhash REQUIRED)

add_library(xxhash INTERFACE)
target_include_directories(xxhash SYSTEM INTERFACE ${XXHASH_INCLUDE_DIR})
target_link_libraries(xxhash INTERFACE ${XXHASH_LIBRARY})

# Boost.Asio, Beast and JSON are compiled once, in third_party/boost.cc; everywhere else only
# their declarations are read.
add_library(pensieve_boost STATIC ${CMAKE_SOURCE_DIR}/third_party/boost.cc)
target_include_directories(pensieve_boost SYSTEM PUBLIC ${Boost_INCLUDE_DIRS})
target_compile_definitions(pensieve_boost PUBLIC
  BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_SEPARATE_COMPILATION BOOST_BEAST_SEPARATE_COMPILATION)
target_link_libraries(pensieve_boost PUBLIC Threads::Threads)
if(PENSIEVE_SANITIZE)
  target_compile_options(pensieve_boost PUBLIC -fsanitize=${PENSIEVE_SANITIZE})
endif()

# Metric families and their text format only: its own package file would also ask for the libraries
# of an HTTP server and a client that are not used here.
find_path(PROMETHEUS_INCLUDE_DIR prometheus/text_serializer.h REQUIRED)
find_library(PROMETHEUS_CORE_LIBRARY prometheus-cpp-core REQUIRED)
add_library(pensieve_prometheus INTERFACE)
target_include_directories(pensieve_prometheus SYSTEM INTERFACE ${PROMETHEUS_INCLUDE_DIR})
target_link_libraries(pensieve_prometheus INTERFACE ${PROMETHEUS_CORE_LIBRARY})

# The worker's filter of system calls; other systems have none.
add_library(pensieve_seccomp INTERFACE)
if(CMAKE_SYSTEM_NAME STREQUAL Linux)
  find_library(SECCOMP_LIBRARY seccomp REQUIRED)
  target_link_libraries(pensieve_seccomp INTERFACE ${SECCOMP_LIBRARY})
endif()
