// What a device must be able to compute for a ViT. One is linked into the program: ../cuda/device_cuda.cu or
// ../sycl/device_sycl.cpp. Activations are float32 on the device, row-major; operations run in the order of the calls.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "native/tensors.hpp"

namespace vitcli {

// y = x · weightᵀ + bias; on the device, in a layout that only the device knows. The type of the weights says how x is
// rounded first: not at all, to bfloat16, or each row to whole numbers of its largest magnitude / 127.
struct Layer {
  native::Type type;
  int num_outputs, num_inputs;
  const void* weight;
  const float* scale;  // of int8 only: one per output
  const float* bias;
};

// A vector of weights and one of biases, or none.
struct Affine {
  const float* weight = nullptr;
  const float* bias = nullptr;
};

enum class Activation { gelu, gelu_tanh, quick_gelu, relu, silu, tanh };
enum class Pooling { token, avg, max, avgmax };

// Sizes of a batch of images that are cut into patches.
struct PatchGrid {
  int batch, rows, columns, patch_size, channels;
};

// Tokens of a batch: (batch, count, width). The first `prefix` of each image are not patches.
struct Tokens {
  int batch, count, prefix, width;
};

struct Device {
  virtual ~Device() = default;

  // Memory that lives as long as the device. Throws BadUse if there is not enough.
  virtual void* allocate(std::size_t num_bytes) = 0;
  virtual void write(void* to, const void* from, std::size_t num_bytes) = 0;
  virtual void read(void* to, const void* from, std::size_t num_bytes) = 0;  // waits for what was asked before
  // scale: of int8 only, otherwise empty
  virtual Layer layer(const native::Matrix& weight, const std::vector<float>& scale,
                      const std::vector<float>& bias) = 0;

  // images (batch, height, width, channels) -> rows of (row, column, channel), one for each patch
  virtual void patches(const float* images, const PatchGrid& grid, float* out) = 0;
  // prefix (P, D), patches (batch, count - P, D) and their positions -> tokens
  virtual void assemble(const float* prefix, const float* patches, const float* positions, const Tokens& sizes,
                        float* out) = 0;
  virtual void linear(const float* x, int num_rows, const Layer& layer, float* out) = 0;
  virtual void layer_norm(const float* x, int num_rows, int width, float eps, const Affine& affine, float* out) = 0;
  virtual void activate(float* x, std::size_t count, Activation activation) = 0;
  // x = x + y
  virtual void add(float* x, const float* y, std::size_t count) = 0;
  // qkv (batch, count, 3, heads, head_dim) -> softmax(q · kᵀ) · v (batch, count, heads, head_dim). width is that of qkv
  virtual void attention(const float* qkv, const Tokens& sizes, int num_heads, int head_dim, bool to_self,
                         float* out) = 0;
  // tokens -> (batch, width): token number `token`, or mean or maximum of the patches
  virtual void pool(const float* x, const Tokens& sizes, Pooling pooling, int token, float* out) = 0;
};

constexpr int LARGEST_HEAD_DIM = 128;  // that attention supports

// name: of --device, in lower case. Throws BadUse if there is no such device.
std::unique_ptr<Device> open_device(const std::string& name);

}  // namespace vitcli
