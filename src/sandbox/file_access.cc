#include "sandbox/file_access.h"

#include <cerrno>
#include <cstdint>
#include <cstring>

#include <fmt/core.h>

#if defined(__linux__)
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pensieve::sandbox {

#if defined(__linux__)

namespace {

// From linux/landlock.h of 6.12. Debian's headers are older than the kernels we may run on.
constexpr int kAbiTruncate = 3;
constexpr int kAbiNetwork = 4;
constexpr int kAbiDeviceIoctl = 5;
constexpr int kAbiScope = 6;
constexpr std::uint64_t kExecute = 1U << 0;
constexpr std::uint64_t kWriteFile = 1U << 1;
constexpr std::uint64_t kReadFile = 1U << 2;
constexpr std::uint64_t kReadFolder = 1U << 3;
constexpr std::uint64_t kRemoveFolder = 1U << 4;
constexpr std::uint64_t kRemoveFile = 1U << 5;
constexpr std::uint64_t kMakeFolder = 1U << 7;
constexpr std::uint64_t kMakeFile = 1U << 8;
constexpr std::uint64_t kAllOfAbi1 = (1U << 13) - 1;
constexpr std::uint64_t kMoveBetweenFolders = 1U << 13;
constexpr std::uint64_t kTruncate = 1U << 14;
constexpr std::uint64_t kDeviceIoctl = 1U << 15;
constexpr std::uint64_t kBindAndConnectTcp = 3;
constexpr std::uint64_t kScopeSocketsAndSignals = 3;

struct RulesetAttributes {
  std::uint64_t files = 0;
  std::uint64_t network = 0;
  std::uint64_t scope = 0;
};
struct __attribute__((packed)) PathRule {
  std::uint64_t allowed = 0;
  std::int32_t descriptor = -1;
};
constexpr int kRulePathBeneath = 1;

constexpr std::uint64_t kReads = kReadFile | kReadFolder;
constexpr std::uint64_t kWrites = kReads | kWriteFile | kTruncate | kMakeFile | kMakeFolder |
                                  kRemoveFile | kRemoveFolder | kMoveBetweenFolders;
/// Those that make sense for a file; the kernel refuses the others in a rule about one.
constexpr std::uint64_t kOfFiles = kExecute | kWriteFile | kReadFile | kTruncate | kDeviceIoctl;

/// What the libraries and our own memory readings open. /proc as a whole: its entries for this
/// process are made anew when the kernel drops them, and a rule would go with the old one; others'
/// secrets in it (environment, memory) are closed to a process in a domain of its own.
constexpr const char* kReadByLibraries[] = {
    "/proc",        "/sys",           "/lib",           "/lib64",           "/usr/lib",
    "/usr/lib64",   "/usr/local/lib", "/etc/localtime", "/etc/ld.so.cache", "/usr/share/zoneinfo",
    "/dev/urandom", "/dev/random",    "/dev/zero"};
constexpr const char* kWrittenByLibraries = "/dev/null";

class Ruleset {
 public:
  /// Errors are in errno.
  bool make() {
    const long abi =
        ::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1U);  // 1: tell the version.
    if (abi <= 0) return false;
    abi_ = static_cast<int>(abi);
    RulesetAttributes attributes;
    attributes.files = kAllOfAbi1;
    if (abi_ >= 2) attributes.files |= kMoveBetweenFolders;
    if (abi_ >= kAbiTruncate) attributes.files |= kTruncate;
    if (abi_ >= kAbiNetwork) attributes.network = kBindAndConnectTcp;
    if (abi_ >= kAbiDeviceIoctl) attributes.files |= kDeviceIoctl;
    if (abi_ >= kAbiScope) attributes.scope = kScopeSocketsAndSignals;
    handled_ = attributes.files;
    // A kernel that knows fewer fields takes the others as long as they are zero.
    descriptor_ = static_cast<int>(
        ::syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0U));
    return descriptor_ >= 0;
  }

  /// Allows `rights` for the file or all below the folder; what is not there is left out. The
  /// descriptor stays open: a rule is about an inode, and overlay file systems make an inode anew
  /// with another identity once nobody holds it.
  void allow(const std::string& path, std::uint64_t rights) {
    const int place = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    struct stat info {};
    if (place < 0 || ::fstat(place, &info) != 0) return;
    if (!S_ISDIR(info.st_mode)) rights &= kOfFiles;
    const PathRule rule{rights & handled_, place};
    if (::syscall(SYS_landlock_add_rule, descriptor_, kRulePathBeneath, &rule, 0U) != 0) {
      ::close(place);
    }
  }

  /// Errors are in errno.
  bool enforce() {
    const bool done = ::syscall(SYS_landlock_restrict_self, descriptor_, 0U) == 0;
    const int number = errno;
    ::close(descriptor_);
    errno = number;
    return done;
  }

  int abi() const { return abi_; }

 private:
  int abi_ = 0;
  int descriptor_ = -1;
  std::uint64_t handled_ = 0;
};

/// Whether open() is refused for that very reason. The root folder is on every system and in no
/// rule of ours.
bool is_closed(const char* path, int flags) {
  const int opened = ::open(path, flags | O_CLOEXEC);
  const bool refused = opened < 0 && errno == EACCES;
  if (opened >= 0) ::close(opened);
  return refused;
}

/// Port 9 of this machine (discard) as an example; a refusal comes before any packet does.
bool tcp_is_closed() {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return false;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(9);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int connected =
      ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const bool refused = connected != 0 && errno == EACCES;
  ::close(socket);
  return refused;
}

FileAccess nothing(const std::string& why) {
  constexpr const char* kRemedy =
      "use Linux 5.13 or later with landlock among its security modules (boot option lsm=)";
  return {{"reads only its model", false, "landlock: " + why, kRemedy},
          {"writes only its cache", false, "landlock: " + why, kRemedy}};
}

}  // namespace

FileAccess restrict_files(const std::vector<std::string>& readable,
                          const std::vector<std::string>& writable_folders) {
  Ruleset rules;
  if (!rules.make()) return nothing(std::strerror(errno));
  for (const char* path : kReadByLibraries) rules.allow(path, kReads);
  rules.allow(kWrittenByLibraries, kReadFile | kWriteFile | kTruncate);
  for (const std::string& path : readable) rules.allow(path, kReads);
  for (const std::string& path : writable_folders) rules.allow(path, kWrites);
  if (!rules.enforce()) return nothing(std::strerror(errno));

  FileAccess access;
  const std::string how = fmt::format("landlock, ABI {}", rules.abi());
  access.reading = {"reads only its model", is_closed("/", O_RDONLY | O_DIRECTORY), how, ""};
  // Without the right to truncate among the rules, others' files could be emptied.
  const bool whole = rules.abi() >= kAbiTruncate;
  access.writing = {"writes only its cache", whole && is_closed("/proc/self/comm", O_WRONLY),
                    whole ? how : how + ": does not keep it from emptying files",
                    whole ? "" : "use Linux 6.2 or later"};
  access.denies_tcp = rules.abi() >= kAbiNetwork && tcp_is_closed();
  return access;
}

#else

FileAccess restrict_files(const std::vector<std::string>&, const std::vector<std::string>&) {
  const std::string why = "this system has no landlock";
  return {{"reads only its model", false, why, ""}, {"writes only its cache", false, why, ""}};
}

#endif

}  // namespace pensieve::sandbox
