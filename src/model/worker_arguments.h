// How a worker program is called.
#pragma once

#include <string>
#include <vector>

#include "memory/level.h"
#include "model/catalogue.h"

namespace pensieve::model {

/// `--engine NAME --floors-bytes CAUTION WARNING CRITICAL EMERGENCY --model PATH --gateway PID
/// [--debug]`: which model, and with it all that the worker can read; and with whom it dies.
std::vector<std::string> worker_arguments(const ModelFile& model, const memory::Floors& floors,
                                          bool debug_log);

}  // namespace pensieve::model
