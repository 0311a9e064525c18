// How `pensieve` ends: one table for every subcommand, the server included.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace pensieve::cli {

enum class ExitCode : std::uint8_t {
  kOk = 0,
  kFailure = 1,
  kUsage = 2,
  kPortInUse = 3,
  kModelUnavailable = 4,
  kUnreachable = 5,
  kRefusedForMemory = 6,
  kDoesNotFit = 7,
  kGuardBroken = 8,
  kInterrupted = 130,  // 128 + SIGINT, as shells have it.
};

struct ExitCodeRow {
  ExitCode code;
  std::string_view meaning;
};

inline constexpr ExitCodeRow kExitCodes[] = {
    {ExitCode::kOk, "done"},
    {ExitCode::kFailure, "failed; the last line says why"},
    {ExitCode::kUsage, "wrong command line or settings"},
    {ExitCode::kPortInUse, "the port is taken by another program"},
    {ExitCode::kModelUnavailable, "the model was not found or cannot be loaded"},
    {ExitCode::kUnreachable, "no server answers at the address"},
    {ExitCode::kRefusedForMemory, "refused for now: too little memory available"},
    {ExitCode::kDoesNotFit, "refused for good: it needs more memory than this machine has"},
    {ExitCode::kGuardBroken, "the memory guard failed its test at start; nothing was served"},
    {ExitCode::kInterrupted, "ended by Ctrl+C"},
};

constexpr int status(ExitCode code) {
  return static_cast<int>(code);
}

}  // namespace pensieve::cli
