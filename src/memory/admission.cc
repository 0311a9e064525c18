#include "memory/admission.h"

#include <fmt/core.h>

#include "memory/report.h"

namespace pensieve::memory {
namespace {

using std::chrono::seconds;

// By choice. The hold of a recovery is over in a second. A reading that failed is tried again in
// milliseconds, so 3 s tell whether it was a hiccup. At Critical idle models are unloaded within
// seconds; at Emergency engines are dropped and have to load again.
constexpr seconds kRetryWhenRecovering{1};
constexpr seconds kRetryWhenUnknown{3};
constexpr seconds kRetryAtCritical{5};
constexpr seconds kRetryAtEmergency{15};

seconds retry_after(const Monitor::Status& status) {
  if (status.recovering) return kRetryWhenRecovering;
  return status.level == Level::kEmergency ? kRetryAtEmergency : kRetryAtCritical;
}

}  // namespace

Admission decide(const Monitor::Status& status) {
  if (!status.available) {
    return Refuse{status.level, std::nullopt,
                  "Server cannot read its available memory and takes no new work until it can",
                  kRetryWhenUnknown};
  }
  if (status.level < Level::kCritical) return Admit{.warn = status.level == Level::kWarning};
  const std::string_view which = status.level == Level::kEmergency ? "emergency" : "critical";
  return Refuse{status.level, status.available,
                fmt::format("Server is under {} memory pressure: {}GB available{}{}{}", which,
                            gb_text(*status.available), status.recovering ? ", recovering" : "",
                            status.worsened_by.empty() ? "" : "; ", status.worsened_by),
                retry_after(status)};
}

std::string_view memory_status_header(const Monitor::Status& status) {
  return name(status.level);
}

std::string available_memory_header(const Monitor::Status& status) {
  return status.available ? gb_text(*status.available) : "unknown";
}

}  // namespace pensieve::memory
