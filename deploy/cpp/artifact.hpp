// The folder that `vitcli export` writes: a network, the names of its classes, and the preprocessing of images.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "image.hpp"
#include "resize.hpp"

namespace vitcli {

enum class Dtype { uint8, float32 };
enum class Layout { nhwc, nchw };

// How an image is resized before the center crop: to cover the input, to its aspect ratio, or to fit into it.
enum class CropMode { center, squash, border };

struct Preprocessing {
  int height, width;  // of the network's input in pixels
  CropMode crop_mode;
  std::vector<float> border;  // of crop mode border: values of a pixel, per channel
  double crop_pct;  // share of the resized image that the center crop keeps
  Filter filter;
  PixelFormat format;
  std::vector<float> mean, std;  // per channel, of pixels 0 to 1; for networks that take float32
};

struct Artifact {
  std::string format;          // onnx, openvino, aoti, executorch, torch_export
  std::string precision;       // fp32, bf16, fp16, int8, ...
  std::string device;          // that it was exported for: cpu, cuda, gpu (of OpenVINO)
  std::filesystem::path file;  // the network
  Dtype dtype;                 // uint8: pixels, normalized inside the network; float32: normalized by this program
  Layout layout;
  int batch;                 // images per call; 1 if any number is possible
  bool gives_probabilities;  // otherwise logits
  Preprocessing preprocessing;
  std::vector<std::string> labels;
  // An image has each class whose probability, a sigmoid, is at least this. Empty: it has one class, by softmax.
  std::vector<double> thresholds;
};

// Reads the artifact after every file of it was found unchanged, as an artifact may contain native code. Throws BadUse.
Artifact load_artifact(const std::filesystem::path& directory);

}  // namespace vitcli
