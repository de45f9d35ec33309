// The library that runs the network. One is linked into the program; each is one file, runtime_<name>.cpp.
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

// device: a word of the runtime's, in lower case. num_threads: 0 leaves the choice to the runtime.
// Throws BadUse where the runtime has no such device or number.
std::unique_ptr<Runtime> open_runtime(const Artifact& artifact, const std::string& device, int num_threads);

}  // namespace vitcli
