#include "engine/attempt.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include <fmt/core.h>

namespace pensieve::engine {
namespace {

struct Verb {
  std::string_view name;
  Attempt::Kind kind;
  bool takes_number;
};

constexpr std::array<Verb, 6> kVerbs = {{{"read", Attempt::Kind::kRead, false},
                                         {"write", Attempt::Kind::kWrite, false},
                                         {"list", Attempt::Kind::kList, false},
                                         {"connect", Attempt::Kind::kConnect, true},
                                         {"exec", Attempt::Kind::kExec, false},
                                         {"signal", Attempt::Kind::kSignal, true}}};

std::optional<int> parse_number(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number <= 0) return std::nullopt;
  return number;
}

std::string outcome(bool done) {
  if (done) return "done";
#if defined(__GLIBC__)
  return ::strerrorname_np(errno);
#else
  return std::to_string(errno);
#endif
}

std::string try_open(const std::string& path, int flags) {
  const int opened = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
  const std::string result = outcome(opened >= 0);
  if (opened >= 0) ::close(opened);
  return result;
}

std::string try_connect(int port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  if (socket < 0) return outcome(false);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int connected =
      ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const std::string result = outcome(connected == 0);
  ::close(socket);
  return result;
}

std::string try_exec(std::string program) {
  char* const arguments[] = {program.data(), nullptr};
  char* const environment[] = {nullptr};
  ::execve(program.c_str(), arguments, environment);
  return outcome(false);
}

}  // namespace

std::optional<Attempt> parse_attempt(std::string_view verb, std::string_view target) {
  for (const Verb& known : kVerbs) {
    if (known.name != verb || target.empty()) continue;
    if (known.takes_number && !parse_number(target)) return std::nullopt;
    return Attempt{known.kind, std::string(target)};
  }
  return std::nullopt;
}

std::string perform(const Attempt& attempt) {
  switch (attempt.kind) {
    case Attempt::Kind::kRead:
      return try_open(attempt.target, O_RDONLY);
    case Attempt::Kind::kWrite:
      return try_open(attempt.target, O_WRONLY | O_CREAT);
    case Attempt::Kind::kList:
      return try_open(attempt.target, O_RDONLY | O_DIRECTORY);
    case Attempt::Kind::kConnect:
      return try_connect(*parse_number(attempt.target));
    case Attempt::Kind::kExec:
      return try_exec(attempt.target);
    case Attempt::Kind::kSignal:
      return outcome(::kill(*parse_number(attempt.target), 0) == 0);
  }
  return "unknown";
}

Result<bool> create_once(const std::string& path) {
  const int file = open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (file >= 0) {
    close(file);
    return true;
  }
  if (errno == EEXIST) return false;
  return fail(Code::kInternal, fmt::format("once: {}: {}", path, std::strerror(errno)));
}

}  // namespace pensieve::engine
