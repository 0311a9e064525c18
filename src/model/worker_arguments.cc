#include "model/worker_arguments.h"

#include <unistd.h>

namespace pensieve::model {

std::vector<std::string> worker_arguments(const ModelFile& model, const memory::Floors& floors,
                                          const std::string& prefix_directory, bool debug_log) {
  std::vector<std::string> args{"--engine", model.engine, "--floors-bytes"};
  for (const Bytes floor : {floors.caution, floors.warning, floors.critical, floors.emergency}) {
    args.push_back(std::to_string(floor.count()));
  }
  args.insert(args.end(), {"--model", model.path, "--gateway", std::to_string(::getpid())});
  if (!model.projector.empty()) args.insert(args.end(), {"--projector", model.projector});
  if (debug_log) args.emplace_back("--debug");
  if (!prefix_directory.empty()) {
    args.emplace_back("--prefixes");
    args.push_back(prefix_directory);
  }
  return args;
}

}  // namespace pensieve::model
