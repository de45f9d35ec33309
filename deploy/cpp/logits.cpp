// logits ARTIFACT_DIR IMAGE: all outputs of the network for an image, one a line, as they are: for comparisons.
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
  const Preprocessing& how = artifact.preprocessing;
  const auto runtime = open_runtime(artifact, artifact.device, options.num_threads);
  const Image pixels = network_pixels(read_image(options.image, how.format), how);
  for (const float number : runtime->run(to_tensor(pixels, artifact))) std::printf("%.9g\n", number);
  return 0;
}

}  // namespace
}  // namespace vitcli

int main(int argc, char** argv) { return vitcli::run_and_report(vitcli::logits, argc, argv); }
