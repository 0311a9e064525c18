// Runs a program for its few lines of output, with a time limit.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace pensieve::cli {

struct ProgramOutput {
  int status = 0;    // Exit status; 128 + signal where a signal ended it.
  std::string text;  // Standard output and standard error together, up to 64 KiB.
};

/// Runs `argv` (argv[0] is a path) with no input and waits for it. Errors: kNotFound where it
/// cannot be started; kDeadlineExceeded after `limit`, when it and its children are killed.
Result<ProgramOutput> run_program(const std::vector<std::string>& argv, Duration limit);

/// The path of `program` along `path` (the PATH variable's text); empty where it is not there.
std::string find_in_path(const std::string& program, const std::string& path);

}  // namespace pensieve::cli
