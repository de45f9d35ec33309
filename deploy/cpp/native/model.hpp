// A network of the native format, ready to run.
#pragma once

#include <memory>
#include <vector>

#include "tensors.hpp"
#include "threads.hpp"

namespace vitcli::native {

struct Model {
  virtual ~Model() = default;

  // The logits (classes,) of one image (height, width, channels), normalized.
  virtual std::vector<float> run(const std::vector<float>& image, Threads& threads) = 0;
};

// Both throw KeyValueError for a part that is missing, or does not fit to the others.
std::unique_ptr<Model> open_vit(const Network& network);
std::unique_ptr<Model> open_fastvit(const Network& network);

}  // namespace vitcli::native
