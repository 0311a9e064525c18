// One claim about how a process is kept from doing harm, and whether it is true on this machine.
#pragma once

#include <string>
#include <vector>

namespace pensieve {

/// What is not known to hold does not hold: `holds` is set after the claim was tried out, or after
/// the kernel confirmed it, never because a call was made.
struct Protection {
  std::string name;  // A claim: "no network".
  bool holds = false;
  std::string detail;  // Where it holds: how. Else: why not.
  std::string remedy;  // What to do about it; empty where it holds or nothing can be done.

  bool operator==(const Protection&) const = default;
};

using Protections = std::vector<Protection>;

}  // namespace pensieve
