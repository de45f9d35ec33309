// benchmark ARTIFACT_DIR IMAGE [--threads N]: after each line that it reads, runs the network on the image once and
// prints the milliseconds that this took. So a script can let it take turns with other programs.
#include <chrono>
#include <cstdio>
#include <iostream>

#include "artifact.hpp"
#include "errors.hpp"
#include "image.hpp"
#include "options.hpp"
#include "preprocess.hpp"
#include "runtime.hpp"

namespace vitcli {
namespace {

int benchmark(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  const Options options = parse_options(argc, argv);
  const Artifact artifact = load_artifact(options.artifact);
  const auto runtime = open_runtime(artifact, artifact.device, options.num_threads);
  const Tensor input = read_input(options.images.front(), artifact);
  for (std::string line; std::getline(std::cin, line);) {
    const auto start = Clock::now();
    runtime->run(input);
    std::printf("%.4f\n", std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace vitcli

int main(int argc, char** argv) { return vitcli::run_and_report(vitcli::benchmark, argc, argv); }
