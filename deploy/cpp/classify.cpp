// classify ARTIFACT_DIR IMAGE...: the most probable classes of each image, according to an exported network; of a
// network for any number of classes per image those that it has, or `none`. Several images are told apart by a line
// with the name of each.
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

void sigmoid(std::vector<float>& logits) {
  for (float& logit : logits) logit = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(logit))));
}

// The probability of each class, from the network's output for a batch that contains the same image `batch` times.
std::vector<float> probabilities(std::vector<float> output, const Artifact& artifact) {
  const std::size_t num_classes = artifact.labels.size();
  if (num_classes == 0 || output.size() != num_classes * artifact.batch) {
    throw BadUse("the network gives " + std::to_string(output.size() / artifact.batch) +
                 " numbers, and labels.txt has " + std::to_string(num_classes) + " names");
  }
  output.resize(num_classes);
  if (artifact.gives_probabilities) return output;
  if (artifact.thresholds.empty()) {
    softmax(output);
  } else {
    sigmoid(output);
  }
  return output;
}

// The classes that are shown, most probable first: those that the image has, or the best five if it has exactly one.
std::vector<std::size_t> shown(const std::vector<float>& probabilities, const Artifact& artifact, int most) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    if (artifact.thresholds.empty() || probabilities[i] >= artifact.thresholds[i]) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return probabilities[a] > probabilities[b]; });
  if (most == 0 && artifact.thresholds.empty()) most = 5;
  if (most > 0) order.resize(std::min<std::size_t>(most, order.size()));
  return order;
}

void print(const std::vector<float>& probabilities, const Artifact& artifact, int most) {
  const std::vector<std::size_t> order = shown(probabilities, artifact, most);
  for (const std::size_t i : order) std::printf("%.4f  %s\n", probabilities[i], artifact.labels[i].c_str());
  if (order.empty()) std::puts("none");
}

int classify(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  const Artifact artifact = load_artifact(options.artifact);
  require_format(artifact);
  const std::string device = options.device.empty() ? artifact.device : options.device;
  const auto runtime = open_runtime(artifact, device, options.num_threads);
  for (const std::filesystem::path& path : options.images) {
    const std::vector<float> found = probabilities(runtime->run(read_input(path, artifact)), artifact);
    if (options.images.size() > 1) std::puts(path.c_str());
    print(found, artifact, options.most);
  }
  return 0;
}

}  // namespace
}  // namespace vitcli

int main(int argc, char** argv) { return vitcli::run_and_report(vitcli::classify, argc, argv); }
