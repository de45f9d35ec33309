// A ViT of the native format, docs/native.md, on any device.
#pragma once

#include <optional>
#include <vector>

#include "device.hpp"
#include "native/tensors.hpp"

namespace vitcli {

class Vit {
 public:
  // Copies the weights to the device. Throws BadUse: it is another architecture. Throws KeyValueError:
  // something is missing, or does not fit.
  Vit(const native::Network& network, Device& device);

  // images (batch, height, width, channels), normalized -> logits (batch, classes).
  std::vector<float> logits(const std::vector<float>& images, int batch);

  int num_classes() const { return num_classes_; }

 private:
  struct Block {
    Layer qkv, proj, fc1, fc2;
  };
  struct Head {
    Layer first;
    std::optional<Layer> second;  // after GELU

    int num_outputs() const { return second ? second->num_outputs : first.num_outputs; }
  };
  struct Buffers {
    float *images, *patches, *tokens, *normed, *wide, *narrow, *pooled, *hidden;
  };

  void read_sizes(const native::Network& network);
  void read_weights(const native::Network& network);
  Layer read_layer(const native::Network& network, const std::string& name, int outputs, int inputs);
  Affine read_affine(const native::Network& network, const std::string& name);
  const float* read_floats(const native::Network& network, const std::string& name, const std::vector<int>& shape);
  Head read_head(const native::Network& network, const std::string& name);
  void reserve(int batch);
  float* floats(std::size_t count);

  void embed(int batch);
  void run_block(const Block& block, int batch);
  std::vector<float> classify(int token, const Head& head, int batch);

  Device& device_;
  PatchGrid grid_{};
  Tokens sizes_{};
  int num_heads_, head_dim_, mlp_dim_, num_classes_, num_pooled_, head_hidden_ = 0, pre_logits_dim_ = 0;
  float eps_;
  bool norms_pixels_, attends_to_self_, norm_is_after_;
  Activation activation_;
  Pooling pooling_;

  Layer patch_;
  const float *prefix_ = nullptr, *positions_;
  std::optional<Affine> patch_norm_, norm_pre_, norm_;
  std::vector<Block> blocks_;
  std::optional<Layer> pre_logits_, fine_tune_;
  std::vector<Head> heads_;
  int reserved_batch_ = 0;
  Buffers buffers_{};
};

}  // namespace vitcli
