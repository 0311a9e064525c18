#include "sandbox/syscall_filter.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#if defined(__linux__)
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pensieve::sandbox {

#if defined(__linux__)

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

/// Sockets, also by way of io_uring, which makes calls that no filter sees. The socket that we
/// have stays usable.
constexpr const char* kNetwork[] = {
    "socket", "socketpair", "connect",        "bind",           "listen",
    "accept", "accept4",    "io_uring_setup", "io_uring_enter", "io_uring_register"};

/// Other programs and processes, and what only administrators need.
constexpr const char* kPrograms[] = {"execve",
                                     "execveat",
                                     "process_vm_readv",
                                     "process_vm_writev",
                                     "process_madvise",
                                     "process_mrelease",
                                     "pidfd_open",
                                     "pidfd_getfd",
                                     "kcmp",
                                     "pidfd_send_signal",
                                     "tkill",
                                     "rt_sigqueueinfo",
                                     "setrlimit",
                                     "rt_tgsigqueueinfo",
                                     "unshare",
                                     "setns",
                                     "mount",
                                     "umount2",
                                     "pivot_root",
                                     "chroot",
                                     "open_tree",
                                     "move_mount",
                                     "fsopen",
                                     "mount_setattr",
                                     "bpf",
                                     "perf_event_open",
                                     "userfaultfd",
                                     "keyctl",
                                     "add_key",
                                     "request_key",
                                     "kexec_load",
                                     "kexec_file_load",
                                     "init_module",
                                     "finit_module",
                                     "delete_module",
                                     "reboot",
                                     "swapon",
                                     "swapoff",
                                     "syslog",
                                     "acct",
                                     "quotactl",
                                     "settimeofday",
                                     "clock_settime",
                                     "clock_adjtime",
                                     "adjtimex",
                                     "sethostname",
                                     "setdomainname",
                                     "open_by_handle_at",
                                     "iopl",
                                     "ioperm"};

/// How a process makes another one or takes hold of it.
constexpr const char* kProcesses[] = {"fork", "vfork", "ptrace"};

using Context = std::unique_ptr<void, void (*)(scmp_filter_ctx)>;

/// One call, with or without a condition. A call that this library or machine does not know cannot
/// be made by its name either. Returns 0 or a negative errno.
int deny(scmp_filter_ctx filter, const char* name, std::uint32_t action) {
  const int number = ::seccomp_syscall_resolve_name(name);
  if (number == __NR_SCMP_ERROR) return 0;
  return ::seccomp_rule_add_array(filter, action, number, 0, nullptr);
}
int deny_if(scmp_filter_ctx filter, const char* name, const scmp_arg_cmp& condition) {
  const int number = ::seccomp_syscall_resolve_name(name);
  if (number == __NR_SCMP_ERROR) return 0;
  return ::seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(EPERM), number, 1, &condition);
}

int add_conditions(scmp_filter_ctx filter) {
  const auto self = static_cast<scmp_datum_t>(::getpid());
  const scmp_arg_cmp not_self{0, SCMP_CMP_NE, self, 0};
  // abort() and raise() signal the process itself; anybody else is off limits.
  for (const char* name : {"kill", "tgkill"}) {
    if (const int failed = deny_if(filter, name, not_self); failed != 0) return failed;
  }
  // Reading a limit is what pthread_create() does; changing one is not.
  const scmp_arg_cmp changes{2, SCMP_CMP_NE, 0, 0};
  if (const int failed = deny_if(filter, "prlimit64", changes); failed != 0) return failed;
  // Typing into the terminal that our log goes to.
  constexpr scmp_datum_t kAllBits = 0xFFFFFFFF;
  for (const scmp_datum_t request : {scmp_datum_t{TIOCSTI}, scmp_datum_t{TIOCLINUX}}) {
    const scmp_arg_cmp types{1, SCMP_CMP_MASKED_EQ, kAllBits, request};
    if (const int failed = deny_if(filter, "ioctl", types); failed != 0) return failed;
  }
  return 0;
}

int add_processes(scmp_filter_ctx filter) {
  if (kSanitized) return 0;
  for (const char* name : kProcesses) {
    if (const int failed = deny(filter, name, SCMP_ACT_ERRNO(EPERM)); failed != 0) return failed;
  }
  // A thread is a clone that shares its process. clone3() keeps its flags where no filter can look;
  // the C library falls back to clone() where the kernel does not know it.
  const scmp_arg_cmp no_thread{0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0};
  if (const int failed = deny_if(filter, "clone", no_thread); failed != 0) return failed;
  return deny(filter, "clone3", SCMP_ACT_ERRNO(ENOSYS));
}

/// Returns 0 or a negative errno.
int load() {
  const Context filter(::seccomp_init(SCMP_ACT_ALLOW), ::seccomp_release);
  if (!filter) return -ENOMEM;
  for (const char* name : kNetwork) {
    if (const int failed = deny(filter.get(), name, SCMP_ACT_ERRNO(EPERM)); failed != 0) {
      return failed;
    }
  }
  for (const char* name : kPrograms) {
    if (const int failed = deny(filter.get(), name, SCMP_ACT_ERRNO(EPERM)); failed != 0) {
      return failed;
    }
  }
  if (const int failed = add_conditions(filter.get()); failed != 0) return failed;
  if (const int failed = add_processes(filter.get()); failed != 0) return failed;
  return ::seccomp_load(filter.get());
}

bool sockets_are_denied() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  if (socket >= 0) ::close(socket);
  return socket < 0 && errno == EPERM;
}

/// With no path at all, an unfiltered kernel would answer EFAULT.
bool exec_is_denied() {
  return ::syscall(SYS_execve, nullptr, nullptr, nullptr) < 0 && errno == EPERM;
}

}  // namespace

CallFilter filter_calls() {
  CallFilter filter{{"no network", false, "", ""}, {"no other programs", false, "", ""}};
  if (const int failed = load(); failed != 0) {
    const std::string why = std::string("seccomp: ") + std::strerror(-failed);
    constexpr const char* kRemedy = "use a kernel with CONFIG_SECCOMP_FILTER";
    filter.network = {filter.network.name, false, why, kRemedy};
    filter.programs = {filter.programs.name, false, why, kRemedy};
    return filter;
  }
  filter.network.holds = sockets_are_denied();
  filter.network.detail = "seccomp";
  filter.programs.holds = exec_is_denied();
  filter.programs.detail =
      kSanitized ? "seccomp; sanitizer build: processes may be made" : "seccomp";
  return filter;
}

#else

CallFilter filter_calls() {
  const std::string why = "this system has no seccomp";
  return {{"no network", false, why, ""}, {"no other programs", false, why, ""}};
}

#endif

}  // namespace pensieve::sandbox
