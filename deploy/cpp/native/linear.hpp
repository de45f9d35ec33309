// Matrix products with weights that are packed once, and the attention that lies between them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "tensors.hpp"
#include "threads.hpp"

namespace vitcli::native {

// Memory that starts at a multiple of 64 bytes.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&&) noexcept = default;
  Buffer& operator=(Buffer&&) noexcept = default;

  void reserve(std::size_t bytes);
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(start_);
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(start_);
  }

 private:
  std::vector<std::uint8_t> bytes_;
  std::uint8_t* start_ = nullptr;
};

// y = activation(x . weight^T + bias), in the type of the weights.
class Linear {
 public:
  // NAME.weight (outputs, inputs) and NAME.bias. Throws KeyValueError.
  Linear(const Network& network, const std::string& name, int outputs, int inputs);

  // x (rows, inputs) with `stride` floats from row to row -> y (rows, outputs); `adds`: y += instead of y =.
  void run(const float* x, int rows, std::size_t stride, float* y, Threads& threads,
           Activation activation = Activation::none, bool adds = false);
  void run(const float* x, int rows, float* y, Threads& threads, Activation activation = Activation::none,
           bool adds = false) {
    run(x, rows, static_cast<std::size_t>(inputs_), y, threads, activation, adds);
  }

  int outputs() const { return outputs_; }

 private:
  void pack(const Matrix& weight);

  int outputs_, inputs_, units_;
  Encoding encoding_;
  Buffer panels_, encoded_;
  std::vector<float> bias_, scale_, row_scale_;  // the first two are filled to whole panels
  std::vector<std::int32_t> offsets_;
};

// Softmax attention of `tokens` rows of queries, keys and values (tokens, 3, heads, head_dim), the first `queries` of
// which are answered: (queries, heads * head_dim).
class Attention {
 public:
  Attention(int heads, int head_dim, bool attends_to_self)
      : heads_(heads), head_dim_(head_dim), self_(attends_to_self) {}

  void run(const float* qkv, int tokens, int queries, float* output, Threads& threads);

 private:
  void pack(const float* qkv, int tokens, int head);
  void answer(const float* qkv, int tokens, int first, int count, int head, float* output, float* scores) const;

  int heads_, head_dim_;
  bool self_;
  Buffer packed_, scores_;
  std::size_t keys_floats_ = 0, head_floats_ = 0;
};

}  // namespace vitcli::native
