// classify ARTIFACT_DIR IMAGE: the most probable classes of an image, according to an exported network.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "artifact.hpp"
#include "errors.hpp"
#include "image.hpp"
#include "options.hpp"
#include "preprocess.hpp"
#include "runtime.hpp"

namespace vitcli {
namespace {

void require_format(const Artifact& artifact) {
  const std::string runs = RUNTIME_FORMAT;
  if (artifact.format == runs) return;
  throw BadUse("this program runs artifacts of format " + runs + ", and this one is of format " + artifact.format,
               "build the program with another -DRUNTIME, or export the model again with --to " + runs);
}

void softmax(std::vector<float>& logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  for (float& logit : logits) logit = std::exp(logit - largest);
  const float total = std::accumulate(logits.begin(), logits.end(), 0.0f);
  for (float& share : logits) share /= total;
}

// The probability of each class, from the network's output for a batch that contains the same image `batch` times.
std::vector<float> probabilities(std::vector<float> output, const Artifact& artifact) {
  const std::size_t num_classes = artifact.labels.size();
  if (num_classes == 0 || output.size() != num_classes * artifact.batch) {
    throw BadUse("the network gives " + std::to_string(output.size() / artifact.batch) +
                 " numbers, and labels.txt has " + std::to_string(num_classes) + " names");
  }
  output.resize(num_classes);
  if (!artifact.gives_probabilities) softmax(output);
  return output;
}

void print_best(const std::vector<float>& probabilities, const std::vector<std::string>& labels, int num_best) {
  std::vector<std::size_t> order(labels.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return probabilities[a] > probabilities[b]; });
  order.resize(std::min<std::size_t>(num_best, order.size()));
  for (const std::size_t i : order) std::printf("%.4f  %s\n", probabilities[i], labels[i].c_str());
}

int classify(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  const Artifact artifact = load_artifact(options.artifact);
  require_format(artifact);
  const Preprocessing& how = artifact.preprocessing;
  const Image pixels = network_pixels(read_image(options.image, how.format), how);
  const std::string device = options.device.empty() ? artifact.device : options.device;
  const auto runtime = open_runtime(artifact, device, options.num_threads);
  const std::vector<float> output = runtime->run(to_tensor(pixels, artifact));
  print_best(probabilities(output, artifact), artifact.labels, options.num_best);
  return 0;
}

}  // namespace
}  // namespace vitcli

int main(int argc, char** argv) { return vitcli::run_and_report(vitcli::classify, argc, argv); }
