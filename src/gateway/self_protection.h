// What the gateway does for itself, so that it stays up when memory runs out.
#pragma once

#include <sys/resource.h>

#include "base/protection.h"

namespace pensieve::gateway {

/// Killed late (oom_score_adj), locked in memory (never waits for a swapped page to say 503), as
/// many descriptors as allowed, no core dump of prompts and keys. Each is tried, and the answer
/// says which hold. `descriptors_least` is what the server needs at its limit of connections.
Protections protect_gateway(rlim_t descriptors_least);

/// Choice: far from -1000 ("never"), for a gateway that leaks has to be killable as well; well
/// below every program of the user.
inline constexpr int kGatewayOomScoreAdj = -500;

}  // namespace pensieve::gateway
