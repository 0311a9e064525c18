// Tries the memory guard out, over real HTTP, under simulated pressure: at each start of the
// server, and for `pensieve doctor`.
#pragma once

#include <string>
#include <string_view>
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

/// What failed, with what was seen, for people. Empty where all passed; nothing proved is a
/// failure.
std::string failures_of(const std::vector<GuardProof>& proofs);

// How the proof reads a whole HTTP answer to its request, whose body is wrong on purpose.
bool shows_refusal(std::string_view answer);     // 503, overloaded_error, both memory headers.
bool shows_acceptance(std::string_view answer);  // It got as far as the body: 400.

}  // namespace pensieve::gateway
