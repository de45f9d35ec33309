// OpenVINO: Intel's CPUs (and any x86-64 or ARM one), GPUs and NPUs.
#include <algorithm>
#include <cctype>
#include <openvino/openvino.hpp>

#include "runtime.hpp"

namespace vitcli {
namespace {

// The type in which layers that are not int8 compute: the artifact's, or float32 if the device does not have it. By
// default, OpenVINO computes float32 networks in bf16 on some CPUs.
ov::element::Type compute_type(ov::Core& core, const std::string& device, const std::string& precision) {
  const auto capabilities = core.get_property(device, ov::device::capabilities);
  const auto has = [&](const char* type) {
    return std::find(capabilities.begin(), capabilities.end(), type) != capabilities.end();
  };
  if (precision == "fp16" && has(ov::device::capability::FP16)) return ov::element::f16;
  if ((precision == "bf16" || precision == "int8") && has(ov::device::capability::BF16)) return ov::element::bf16;
  return ov::element::f32;
}

class OpenVino : public Runtime {
 public:
  OpenVino(const Artifact& artifact, const std::string& device, int num_threads) {
    ov::AnyMap properties{ov::hint::inference_precision(compute_type(core_, device, artifact.precision)),
                          ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY)};
    if (num_threads > 0) properties.insert(ov::inference_num_threads(num_threads));
    const std::shared_ptr<ov::Model> model = core_.read_model(artifact.file.string());
    // A fixed shape is fastest; and with a free batch size, OpenVINO 2026.4.1 computed wrong numbers for one image with
    // an int8 network.
    const std::vector<std::int64_t> shape = input_shape(artifact);
    model->reshape(ov::PartialShape(std::vector<ov::Dimension>(shape.begin(), shape.end())));
    request_ = core_.compile_model(model, device, properties).create_infer_request();
  }

  std::vector<float> run(const Tensor& input) override {
    const auto type = input.dtype == Dtype::uint8 ? ov::element::u8 : ov::element::f32;
    ov::Tensor tensor(type, ov::Shape(input.shape.begin(), input.shape.end()));
    std::copy(input.data.begin(), input.data.end(), static_cast<std::uint8_t*>(tensor.data()));
    request_.set_input_tensor(tensor);
    request_.infer();
    const ov::Tensor output = request_.get_output_tensor();
    return {output.data<float>(), output.data<float>() + output.get_size()};
  }

 private:
  ov::Core core_;
  ov::InferRequest request_;
};

}  // namespace

const char* const RUNTIME_FORMAT = "openvino";

std::unique_ptr<Runtime> open_runtime(const Artifact& artifact, const std::string& device, int num_threads) {
  std::string name = device;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char letter) { return std::toupper(letter); });
  return std::make_unique<OpenVino>(artifact, name, num_threads);
}

}  // namespace vitcli
