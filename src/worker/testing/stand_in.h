// Workers that are shell scripts: for everything that the real one would never do.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <fmt/core.h>

#include "worker/frame.h"
#include "worker/worker_link.h"

namespace pensieve::worker {

inline WorkerLink::Options stand_in(const std::string& script) {
  return {.program = "/bin/sh", .args = {"-c", script}};
}

/// The shell command that sends these bytes over the worker's socket.
inline std::string sends(std::string_view bytes) {
  std::string octal;
  for (const char byte : bytes) {
    octal += fmt::format("\\{:03o}", static_cast<unsigned>(static_cast<unsigned char>(byte)));
  }
  return fmt::format("printf '{}' >&3; ", octal);
}
inline std::string sends_frame(FrameType type, std::uint32_t request, std::string_view payload) {
  return sends(encode_frame(type, request, payload));
}

/// Lives on, deaf to all frames, until the gateway's end is closed.
inline constexpr const char* kStaysDeaf = "exec cat <&3 >/dev/null";
/// Lives on without a socket, until it is killed (or a minute has passed, should the test crash).
inline constexpr const char* kStaysWithoutSocket = "exec 3>&-; exec sleep 60";

/// The built worker with its scripted engine and floors that no machine is below. It can read the
/// file `model` and write beside it, and nothing else that is the test's.
inline WorkerLink::Options real_worker(const std::string& model) {
  return {.program = PENSIEVE_WORKER_PROGRAM,
          .args = {"--engine", "scripted", "--floors-bytes", "4", "3", "2", "1", "--model", model}};
}

}  // namespace pensieve::worker
