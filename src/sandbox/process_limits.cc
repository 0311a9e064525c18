#include "sandbox/process_limits.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <fstream>

#include <fmt/core.h>

#if defined(__linux__)
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

namespace pensieve::sandbox {
namespace {

std::string reason() {
  return std::strerror(errno);
}

#if !defined(__linux__)
Protection only_linux(std::string name) {
  return {std::move(name), false, "this system has no such thing", ""};
}
#endif

}  // namespace

Protection dump_no_core() {
  // One byte, not zero: where cores go to a program (systemd-coredump, apport), the kernel ignores
  // the limit, except that 1 means "none" (core(5)); a file of one byte is never begun either.
  const rlimit limit{1, 1};
  rlimit now{};
  const bool holds = ::setrlimit(RLIMIT_CORE, &limit) == 0 && ::getrlimit(RLIMIT_CORE, &now) == 0 &&
                     now.rlim_max <= 1;
  return {"no core dumps", holds, holds ? "RLIMIT_CORE" : reason(), ""};
}

#if defined(__linux__)

Protection be_killed_first() {
  constexpr const char* kPath = "/proc/self/oom_score_adj";
  {
    std::ofstream file(kPath);
    file << 1000;
  }
  int now = 0;
  std::ifstream file(kPath);
  const bool holds = (file >> now) && now == 1000;
  return {"first to be killed", holds,
          holds ? "oom_score_adj 1000" : fmt::format("{} cannot be set", kPath),
          holds ? "" : "mount /proc writable"};
}

Protection close_descriptors_above(int last) {
  const auto first = static_cast<unsigned>(last) + 1;
  const bool holds = ::syscall(SYS_close_range, first, UINT_MAX, 0U) == 0;
  return {"descriptors closed", holds, holds ? fmt::format("all above {}", last) : reason(),
          holds ? "" : "use Linux 5.9 or later"};
}

Protection drop_privileges() {
  Protection result{"no privileges", false, "", ""};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    result.detail = "no_new_privs: " + reason();
    return result;
  }
  // To open a model or a cache of another user; landlock says which. Without them a root that
  // started us could read less than the user who owns the file.
  constexpr std::uint32_t kKept = (1U << CAP_DAC_OVERRIDE) | (1U << CAP_DAC_READ_SEARCH);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(SYS_capget, &header, sets) != 0) {
    result.detail = "capget: " + reason();
    return result;
  }
  const std::uint32_t kept = sets[0].permitted & kKept;
  sets[0] = {kept, kept, 0};
  sets[1] = {};
  if (::syscall(SYS_capset, &header, sets) != 0) {
    result.detail = "capset: " + reason();
    return result;
  }
  result.holds = ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
  result.detail = "no_new_privs, no capabilities but to open files";
  return result;
}

Protection die_with(std::optional<pid_t> parent) {
  Protection result{"dies with the gateway", false, "no parent was named", ""};
  if (!parent) return result;
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
    result.detail = reason();
    return result;
  }
  // It may have died before the call above, and then no signal comes.
  if (::getppid() == *parent) {
    int signal = 0;
    result.holds = ::prctl(PR_GET_PDEATHSIG, &signal) == 0 && signal == SIGKILL;
    result.detail = "PR_SET_PDEATHSIG";
    return result;
  }
  if (::kill(*parent, 0) != 0 && errno == ESRCH) ::raise(SIGKILL);
  result.detail = fmt::format("process {} is not the parent, {} is", *parent, ::getppid());
  result.remedy = "let a wrapper around the worker program end with exec";
  return result;
}

#else

Protection be_killed_first() {
  return only_linux("first to be killed");
}
Protection close_descriptors_above(int) {
  return only_linux("descriptors closed");
}
Protection drop_privileges() {
  return only_linux("no privileges");
}
Protection die_with(std::optional<pid_t>) {
  return only_linux("dies with the gateway");
}

#endif

}  // namespace pensieve::sandbox
