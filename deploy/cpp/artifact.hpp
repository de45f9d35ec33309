// The directory that `vitcli export` writes: a network, the names of its classes, and what an image must become for it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "resize.hpp"

namespace vitcli {

enum class Dtype { uint8, float32 };
enum class Layout { nhwc, nchw };

struct Preprocessing {
  int image_resize;  // side of the network's square input in pixels
  double crop_pct;   // share of the resized image that the center crop keeps
  Filter filter;
  int in_channels;               // 1 gray, 3 RGB
  std::vector<float> mean, std;  // per channel, of pixels 0 to 1; for networks that take float32
};

struct Artifact {
  std::string format;          // onnx, openvino, aoti, executorch, torch_export
  std::string precision;       // fp32, bf16, fp16, int8, ...
  std::string device;          // the one that it was exported for: cpu, cuda, gpu (OpenVINO's)
  std::filesystem::path file;  // the network
  Dtype dtype;                 // uint8: pixels, normalized inside the network; float32: normalized by us
  Layout layout;
  int batch;                 // images per call; 1 where any number is possible
  bool gives_probabilities;  // else logits
  Preprocessing preprocessing;
  std::vector<std::string> labels;
};

// Reads the artifact after every file that its manifest names was found unchanged; an artifact may hold native code.
// Throws BadUse.
Artifact load_artifact(const std::filesystem::path& directory);

}  // namespace vitcli
