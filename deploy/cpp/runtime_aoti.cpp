// AOTInductor: the network compiled to native code by PyTorch, for the CPU or for the GPU that exported it.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Logging.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include "errors.hpp"
#include "runtime.hpp"

namespace vitcli {
namespace {

class Aoti : public Runtime {
 public:
  explicit Aoti(const Artifact& artifact) : device_(artifact.device), loader_(artifact.file.string()) {}

  std::vector<float> run(const Tensor& input) override {
    const c10::InferenceMode without_autograd;
    const auto type = input.dtype == Dtype::uint8 ? at::kByte : at::kFloat;
    auto* data = const_cast<std::uint8_t*>(input.data.data());  // required by from_blob; the network only reads
    const at::Tensor tensor = at::from_blob(data, input.shape, at::TensorOptions().dtype(type)).to(device_);
    const at::Tensor output = loader_.run({tensor}).at(0).to(at::kCPU, at::kFloat).contiguous();
    return {output.data_ptr<float>(), output.data_ptr<float>() + output.numel()};
  }

 private:
  at::Device device_;
  torch::inductor::AOTIModelPackageLoader loader_;
};

}  // namespace

const char* const RUNTIME_FORMAT = "aoti";

std::unique_ptr<Runtime> open_runtime(const Artifact& artifact, const std::string& device, int num_threads) {
  if (device != artifact.device) {
    throw BadUse("the artifact was compiled for " + artifact.device + " and cannot run on " + device,
                 "export the model on a machine with that device");
  }
  if (artifact.device == "cuda" && !at::hasCUDA()) throw BadUse("the artifact needs a CUDA device, and there is none");
  c10::SetStackTraceFetcher([] { return std::string(); });  // messages without PyTorch's stack
  if (num_threads > 0) at::set_num_threads(num_threads);
  return std::make_unique<Aoti>(artifact);
}

}  // namespace vitcli
