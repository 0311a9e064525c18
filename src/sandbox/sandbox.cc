#include "sandbox/sandbox.h"

#include <cstring>
#include <utility>

#include "sandbox/file_access.h"
#include "sandbox/process_limits.h"
#include "sandbox/syscall_filter.h"

namespace pensieve::sandbox {

Protections confine_process(const Wanted& wanted) {
  Protections all;
  // In this order: writing to /proc comes before access to it ends; giving up privileges comes
  // before landlock, which asks for no_new_privs; the filter comes last, for it forbids what the
  // others need.
  all.push_back(be_killed_first());
  all.push_back(dump_no_core());
  all.push_back(close_descriptors_above(wanted.last_descriptor));
  all.push_back(drop_privileges());
  all.push_back(die_with(wanted.parent));
  FileAccess files = restrict_files(wanted.readable, wanted.writable_folders);
  all.push_back(std::move(files.reading));
  all.push_back(std::move(files.writing));
  CallFilter calls = filter_calls();
  if (!calls.network.holds && files.denies_tcp) {
    calls.network = {"no network", true, "TCP only, by landlock; " + calls.network.detail, ""};
  }
  all.push_back(std::move(calls.network));
  all.push_back(std::move(calls.programs));
  return all;
}

}  // namespace pensieve::sandbox
