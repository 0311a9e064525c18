// How a worker program is called.
#pragma once

#include <string>
#include <vector>

#include "memory/level.h"
#include "model/catalogue.h"

namespace pensieve::model {

/// `--engine NAME --floors-bytes CAUTION WARNING CRITICAL EMERGENCY --model PATH --gateway PID
/// [--projector PATH] [--debug] [--prefixes FOLDER]`: which model, and with it all that the worker
/// can read; with whom it dies; and where prefixes are kept on disk, nowhere where
/// `prefix_directory` is empty.
std::vector<std::string> worker_arguments(const ModelFile& model, const memory::Floors& floors,
                                          const std::string& prefix_directory, bool debug_log);

}  // namespace pensieve::model
