// No framework: the folder of `vitcli export --to native`, computed by the code in native/.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "errors.hpp"
#include "native/kernels.hpp"
#include "native/model.hpp"
#include "native/tensors.hpp"
#include "runtime.hpp"

namespace vitcli {
namespace {

using native::Network;

std::unique_ptr<native::Model> open_model(const Network& network) {
  const std::string& kind = network.text("architecture");
  if (kind == "vit") return native::open_vit(network);
  if (kind == "fastvit") return native::open_fastvit(network);
  throw KeyValueError("architecture '" + kind + "' is unknown to this program");
}

class Native : public Runtime {
 public:
  Native(const Artifact& artifact, const Network& network, int num_threads)
      : threads_(num_threads),
        model_(open_model(network)),
        channels_(network.size("in_channels")),
        takes_pixels_(network.text("input") == "pixels"),
        activation_(network.text("activation")) {
    const Preprocessing& seen = artifact.preprocessing;
    if (network.size("image_height") != seen.height || network.size("image_width") != seen.width ||
        channels_ != seen.format.channels || takes_pixels_ != (artifact.dtype == Dtype::uint8) ||
        takes_pixels_ != (artifact.layout == Layout::nhwc)) {
      throw KeyValueError("its input is another than that of artifact.txt");
    }
    if (artifact.gives_probabilities != (activation_ != "none")) {
      throw KeyValueError("its output is another than that of artifact.txt");
    }
    if (network.size("num_classes") != static_cast<int>(artifact.labels.size())) {
      throw KeyValueError("it has another number of classes than labels.txt");
    }
    if (!takes_pixels_) return;
    scale_ = network.numbers("pixel_scale");
    shift_ = network.numbers("pixel_shift");
    if (static_cast<int>(scale_.size()) != channels_ || scale_.size() != shift_.size()) {
      throw KeyValueError("pixel_scale or pixel_shift does not fit in_channels");
    }
  }

  std::vector<float> run(const Tensor& input) override {
    const std::size_t batch = static_cast<std::size_t>(input.shape[0]);
    const std::size_t numbers = input.data.size() / (takes_pixels_ ? 1 : sizeof(float)) / batch;
    std::vector<float> output, image(numbers);
    for (std::size_t i = 0; i < batch; ++i) {
      if (takes_pixels_) {
        normalize(input.data.data() + i * numbers, image);
      } else {
        to_channels_last(input.data.data() + i * numbers * sizeof(float), image);
      }
      std::vector<float> answer = model_->run(image, threads_);
      activate(answer);
      output.insert(output.end(), answer.begin(), answer.end());
    }
    return output;
  }

 private:
  void normalize(const std::uint8_t* pixels, std::vector<float>& image) const {
    for (std::size_t i = 0; i < image.size(); ++i) {
      image[i] = static_cast<float>(double{scale_[i % channels_]} * pixels[i] + shift_[i % channels_]);
    }
  }

  void to_channels_last(const std::uint8_t* bytes, std::vector<float>& image) const {
    const std::size_t positions = image.size() / channels_;
    for (std::size_t i = 0; i < image.size(); ++i) {
      std::memcpy(&image[i % positions * channels_ + i / positions], bytes + sizeof(float) * i, sizeof(float));
    }
  }

  void activate(std::vector<float>& logits) const {
    if (activation_ == "softmax") {
      const double most = *std::max_element(logits.begin(), logits.end());
      double total = 0;
      for (const float logit : logits) total += std::exp(logit - most);
      for (float& logit : logits) logit = static_cast<float>(std::exp(logit - most) / total);
    } else if (activation_ == "sigmoid") {
      for (float& logit : logits) logit = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(logit))));
    }
  }

  native::Threads threads_;
  std::unique_ptr<native::Model> model_;
  int channels_;
  bool takes_pixels_;
  std::string activation_;
  std::vector<float> scale_, shift_;
};

}  // namespace

const char* const RUNTIME_FORMAT = "native";

std::unique_ptr<Runtime> open_runtime(const Artifact& artifact, const std::string& device, int num_threads) {
  if (device != "cpu")
    throw BadUse("the native program has no device " + device, "remove --device: it runs on the CPU");
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  try {
    return std::make_unique<Native>(artifact, Network::read(artifact.file),
                                    num_threads > 0 ? std::min(num_threads, 256) : cores);
  } catch (const KeyValueError& error) {
    throw BadUse(artifact.file.string() + " cannot be run: " + error.what(), "export the model again");
  }
}

}  // namespace vitcli
