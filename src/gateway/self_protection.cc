#include "gateway/self_protection.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>

#include <fmt/core.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pensieve::gateway {
namespace {

std::string reason() {
  return std::strerror(errno);
}

Protection raise_descriptors(rlim_t least) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return {"descriptors", false, reason(), ""};
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const bool holds = ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= least;
  return {"descriptors", holds, fmt::format("{} of {} needed", limit.rlim_cur, least),
          holds ? "" : fmt::format("raise the hard limit (LimitNOFILE={} or more)", least)};
}

/// For us only: the hard limit stays for the worker to set. One byte, not zero: see
/// sandbox/process_limits.cc.
Protection dump_no_core() {
  rlimit limit{};
  bool holds = ::getrlimit(RLIMIT_CORE, &limit) == 0;
  limit.rlim_cur = std::min<rlim_t>(1, limit.rlim_max);
  holds = holds && ::setrlimit(RLIMIT_CORE, &limit) == 0;
  return {"no core dumps", holds, holds ? "RLIMIT_CORE" : reason(), ""};
}

#if defined(__linux__)

constexpr const char* kOomScorePath = "/proc/self/oom_score_adj";

std::optional<int> oom_score() {
  std::ifstream file(kOomScorePath);
  int now = 0;
  if (!(file >> now)) return std::nullopt;
  return now;
}

Protection be_killed_late() {
  std::optional<int> now = oom_score();
  if (now && *now > kGatewayOomScoreAdj) {
    std::ofstream(kOomScorePath) << kGatewayOomScoreAdj;
    now = oom_score();
  }
  if (!now) return {"killed late", false, fmt::format("{} cannot be read", kOomScorePath), ""};
  const bool holds = *now <= kGatewayOomScoreAdj;
  return {"killed late", holds, fmt::format("oom_score_adj {}", *now),
          holds ? "" : "run as root, or as a systemd service with OOMScoreAdjust=-500"};
}

/// Whether a lock may grow for ever. Capabilities do not say it (in a user namespace they are
/// shown, and not honoured), so it is tried: one page more than the limit, none of it touched.
bool may_lock_without_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return false;
  if (limit.rlim_cur == RLIM_INFINITY) return true;
  const std::size_t size = limit.rlim_cur + static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  void* const room = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) return false;
  constexpr int kOnFault = 1;  // MLOCK_ONFAULT.
  const bool locked = ::syscall(SYS_mlock2, room, size, kOnFault) == 0;
  ::munmap(room, size);
  return locked;
}

/// All or nothing. A lock that comes to a limit turns the next growth of the heap or a stack into a
/// crash, which is worse than what it is meant against.
Protection lock_memory() {
  if (!may_lock_without_limit()) {
    rlimit limit{};
    ::getrlimit(RLIMIT_MEMLOCK, &limit);
    return {"locked in memory", false,
            fmt::format("RLIMIT_MEMLOCK is {} KiB, and a lock that cannot grow would make the "
                        "gateway crash where it grows",
                        limit.rlim_cur >> 10),
            "LimitMEMLOCK=infinity in the systemd unit, or run as root"};
  }
  // ONFAULT: pages are locked as they are used; without it, stacks and arenas would be made
  // resident as a whole, tens of MB.
  const bool holds = ::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0;
  return {"locked in memory", holds, holds ? "mlockall" : "mlockall: " + reason(), ""};
}

#else

Protection be_killed_late() {
  return {"killed late", false, "this system has no such thing", ""};
}
Protection lock_memory() {
  return {"locked in memory", false, "this system does not lock whole processes", ""};
}

#endif

}  // namespace

Protections protect_gateway(rlim_t descriptors_least) {
  return {be_killed_late(), lock_memory(), raise_descriptors(descriptors_least), dump_no_core()};
}

}  // namespace pensieve::gateway
