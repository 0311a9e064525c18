#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <string_view>
#include <utility>

#include "base/error.h"

namespace pensieve::worker {

/// Both ends of a Unix stream socket; what is still open is closed with the object.
class SocketPair {
 public:
  SocketPair() { PENSIEVE_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_) == 0); }
  ~SocketPair() {
    close_end(0);
    close_end(1);
  }
  SocketPair(const SocketPair&) = delete;
  SocketPair& operator=(const SocketPair&) = delete;

  int end(int which) const { return ends_[which]; }
  void close_end(int which) {
    const int end = std::exchange(ends_[which], -1);
    if (end >= 0) ::close(end);
  }

  /// Puts bytes into end 0; few enough for the socket's buffer.
  void put(std::string_view bytes) const {
    PENSIEVE_CHECK(::send(ends_[0], bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
                   static_cast<ssize_t>(bytes.size()));
  }

 private:
  int ends_[2] = {-1, -1};
};

}  // namespace pensieve::worker
