// The command line of `classify`.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace vitcli {

struct Options {
  std::filesystem::path artifact;
  std::vector<std::filesystem::path> images;  // at least one
  int most = 0;         // classes to show; 0: 5, or all that an image has if it may have any number
  std::string device;   // in lower case; empty: the device that the artifact was exported for
  int num_threads = 0;  // 0: chosen by the runtime
};

// Throws BadUse.
Options parse_options(int argc, char** argv);

}  // namespace vitcli
