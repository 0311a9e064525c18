// For test programs whose timers follow a clock of their own (ScopedTimerClock): the kernel gives
// no timerfd, and Asio falls back to looking at its timers itself each time that it is polled. With
// a timerfd it would look only when the machine's time is up. On macOS Asio always looks.
#if defined(__linux__)
#include <sys/timerfd.h>

#include <cerrno>

// Stands before the C library's, because a program's own functions are linked first.
extern "C" int timerfd_create(int, int) noexcept {
  errno = ENOSYS;
  return -1;
}
#endif
