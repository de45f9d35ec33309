// The native format on a device: it gives pixels or normalized images to the ViT, and softmax or sigmoid follow.
#include <algorithm>
#include <cmath>

#include "device.hpp"
#include "errors.hpp"
#include "native/tensors.hpp"
#include "runtime.hpp"
#include "vit.hpp"

namespace vitcli {
namespace {

struct Input {
  int height, width, channels;
  std::vector<float> scale, shift;  // of pixels; empty: images are normalized
};

std::vector<float> per_channel(const native::Network& network, const std::string& key, int channels) {
  std::vector<float> numbers = network.numbers(key);
  if (numbers.size() != static_cast<std::size_t>(channels)) throw KeyValueError(key + " does not fit in_channels");
  return numbers;
}

Input read_input(const native::Network& network) {
  Input input{network.size("image_height"), network.size("image_width"), network.size("in_channels"), {}, {}};
  if (network.text("input") != "pixels") return input;
  input.scale = per_channel(network, "pixel_scale", input.channels);
  input.shift = per_channel(network, "pixel_shift", input.channels);
  return input;
}

void softmax(float* logits, int count) {
  const float largest = *std::max_element(logits, logits + count);
  double total = 0;
  for (int i = 0; i < count; ++i) total += logits[i] = std::exp(logits[i] - largest);
  for (int i = 0; i < count; ++i) logits[i] = static_cast<float>(logits[i] / total);
}

class DeviceRuntime : public Runtime {
 public:
  DeviceRuntime(const Artifact& artifact, const native::Network& network, const std::string& device)
      : device_(open_device(device)),
        network_(network, *device_),
        input_(read_input(network)),
        activation_(network.text("activation")) {
    const bool has_pixels = !input_.scale.empty();
    if (has_pixels != (artifact.layout == Layout::nhwc) || artifact.gives_probabilities != (activation_ != "none")) {
      throw KeyValueError("its input or output is another than that of artifact.txt");
    }
  }

  std::vector<float> run(const Tensor& input) override {
    const int batch = static_cast<int>(input.shape[0]), classes = network_.num_classes();
    std::vector<float> outputs = network_.logits(images(input), batch);
    if (activation_ == "softmax") {
      for (int i = 0; i < batch; ++i) softmax(outputs.data() + std::size_t{1} * i * classes, classes);
    } else if (activation_ == "sigmoid") {
      for (float& x : outputs) x = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(x))));
    }
    return outputs;
  }

 private:
  // (batch, height, width, channels), normalized
  std::vector<float> images(const Tensor& input) const {
    const std::size_t channels = input_.channels, area = std::size_t{1} * input_.height * input_.width;
    const std::size_t count = input.shape[0] * area * channels;
    const bool has_pixels = !input_.scale.empty();
    if (input.data.size() != count * (has_pixels ? 1 : sizeof(float))) {
      throw BadUse("artifact.txt and model.txt describe different inputs", "export the model again");
    }
    std::vector<float> result(count);
    const auto* planes = reinterpret_cast<const float*>(input.data.data());
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t c = i % channels, position = i / channels % area, image = i / channels / area;
      result[i] = has_pixels ? input.data[i] * input_.scale[c] + input_.shift[c]
                             : planes[(image * channels + c) * area + position];
    }
    return result;
  }

  std::unique_ptr<Device> device_;
  Vit network_;
  Input input_;
  std::string activation_;
};

}  // namespace

const char* const RUNTIME_FORMAT = "native";

std::unique_ptr<Runtime> open_runtime(const Artifact& artifact, const std::string& device, int num_threads) {
  if (num_threads > 0) throw BadUse("--threads has no effect on this device", "remove it");
  try {
    return std::make_unique<DeviceRuntime>(artifact, native::Network::read(artifact.file), device);
  } catch (const KeyValueError& error) {
    throw BadUse(artifact.file.string() + " cannot be run: " + error.what(), "export the model again");
  }
}

}  // namespace vitcli
