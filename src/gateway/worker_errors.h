// What a client is told of what a worker says, or of its end.
#pragma once

#include "api/error.h"
#include "worker/link.h"
#include "worker/messages.h"

namespace pensieve::gateway {

api::ApiError error_of(const worker::Failed& failed);
api::ApiError error_of(const worker::Refused& refused);

/// The worker died under the request: ours to regret, and worth another try unless the kernel
/// took it for memory, which asks for patience.
api::ApiError error_of(const worker::WorkerGone& gone);

}  // namespace pensieve::gateway
