// logits ARTIFACT_DIR IMAGE...: all outputs of the network for each image, one a line, as they are: for comparisons.
#include <cstdio>

#include "artifact.hpp"
#include "errors.hpp"
#include "image.hpp"
#include "options.hpp"
#include "preprocess.hpp"
#include "runtime.hpp"

namespace vitcli {
namespace {

int logits(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  const Artifact artifact = load_artifact(options.artifact);
  const auto runtime = open_runtime(artifact, artifact.device, options.num_threads);
  for (const std::filesystem::path& path : options.images) {
    for (const float number : runtime->run(read_input(path, artifact))) std::printf("%.9g\n", number);
  }
  return 0;
}

}  // namespace
}  // namespace vitcli

int main(int argc, char** argv) { return vitcli::run_and_report(vitcli::logits, argc, argv); }
