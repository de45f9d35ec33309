// The library that runs the network. One is linked into the program; each has its own file, runtime_<name>.cpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "artifact.hpp"
#include "preprocess.hpp"

namespace vitcli {

struct Runtime {
  virtual ~Runtime() = default;

  // The network's output for all images of `input`: (batch, classes), row after row.
  virtual std::vector<float> run(const Tensor& input) = 0;
};

extern const char* const RUNTIME_FORMAT;  // the format of the artifacts that the linked runtime runs

// device: a name of the runtime, in lower case. num_threads: 0 leaves the choice to the runtime.
// Throws BadUse if the runtime does not have this device or cannot use this number.
std::unique_ptr<Runtime> open_runtime(const Artifact& artifact, const std::string& device, int num_threads);

}  // namespace vitcli
