// Tries the memory guard out, over real HTTP, under simulated pressure: for `pensieve doctor`.
#pragma once

#include <string>
#include <vector>

#include "memory/level.h"

namespace pensieve::gateway {

struct GuardProof {
  std::string name;  // A sentence: "refuses at Critical".
  bool passed = false;
  std::string detail;  // What was seen.
};

/// Starts the production service on a free loopback port with a memory source that says what the
/// proof wants, asks it, and compares. Takes some milliseconds; loads no model, starts no worker.
std::vector<GuardProof> prove_guard(const memory::Floors& floors);

}  // namespace pensieve::gateway
