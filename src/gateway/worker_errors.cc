#include "gateway/worker_errors.h"

#include <variant>

#include "memory/admission.h"
#include "memory/monitor.h"

namespace pensieve::gateway {

api::ApiError error_of(const worker::Failed& failed) {
  switch (failed.code) {
    case Code::kInvalidArgument:
    case Code::kNotFound:
      return api::invalid_request(failed.message);
    case Code::kUnavailable:
    case Code::kOutOfMemory:
      return api::queue_full(failed.message, 5);
    case Code::kDeadlineExceeded:
    case Code::kInternal:
      break;
  }
  return api::internal(failed.message);
}

api::ApiError error_of(const worker::Refused& refused) {
  if (!refused.reason.empty()) return api::overloaded(refused.reason, 5);
  memory::Monitor::Status status;
  status.level = refused.level;
  status.available = refused.available;
  const memory::Admission admission = memory::decide(status);
  const auto* refuse = std::get_if<memory::Refuse>(&admission);
  return refuse != nullptr
             ? api::overloaded(refuse->reason, static_cast<unsigned>(refuse->retry_after.count()))
             : api::overloaded("the worker refused for lack of memory", 5);
}

api::ApiError error_of(const worker::WorkerGone& gone) {
  if (gone.end == worker::WorkerEnd::kKilledByKernel ||
      gone.end == worker::WorkerEnd::kKilledForMemory ||
      gone.end == worker::WorkerEnd::kOutOfMemory) {
    return api::overloaded("the model ran out of memory: " + gone.description, 5);
  }
  return api::internal("the model's worker ended: " + gone.description);
}

}  // namespace pensieve::gateway
