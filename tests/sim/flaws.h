// The planted bugs: each stands for a kind of mistake, on the seam where that mistake would show.
#pragma once

#include <memory>

#include "gateway/exchange.h"
#include "memory/level.h"
#include "sim/machine.h"
#include "sim/simulation.h"

namespace pensieve::sim {

/// What the flaw does to readings, at each moment.
void adjust_for_flaw(Flaw flaw, const Machine& machine, const memory::Floors& floors,
                     SimMemorySource& source);

/// A sink that serves like `sink`, but for the flaw; null where the flaw is another one.
std::unique_ptr<gateway::RequestSink> flawed_sink(Flaw flaw, gateway::RequestSink& sink);

}  // namespace pensieve::sim
