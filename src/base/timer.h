// Timers of everything that runs on an io thread. Whoever includes this links pensieve_boost.
#pragma once

#include <boost/asio/basic_waitable_timer.hpp>

#include "base/clock.h"

namespace pensieve {

/// Asio's timer over TimerClock: the machine's time, unless a simulation has put its own there.
using Timer = boost::asio::basic_waitable_timer<TimerClock>;

}  // namespace pensieve
