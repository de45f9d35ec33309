// ONNX Runtime: any CPU; NVIDIA GPUs with the library's GPU build.
#include "runtime.hpp"

#include <onnxruntime_cxx_api.h>

#include "errors.hpp"

namespace vitcli {
namespace {

Ort::SessionOptions session_options(const std::string& device, int num_threads) {
  Ort::SessionOptions options;
  if (num_threads > 0) options.SetIntraOpNumThreads(num_threads);
  if (device == "cuda") options.AppendExecutionProvider_CUDA(OrtCUDAProviderOptions{});
  return options;
}

class OnnxRuntime : public Runtime {
 public:
  OnnxRuntime(const Artifact& artifact, const std::string& device, int num_threads)
      : session_(environment_, artifact.file.c_str(), session_options(device, num_threads)) {}

  std::vector<float> run(const Tensor& input) override {
    const auto type =
        input.dtype == Dtype::uint8 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    void* data = const_cast<std::uint8_t*>(input.data.data());  // required by the library, which only reads
    const Ort::Value value =
        Ort::Value::CreateTensor(memory, data, input.data.size(), input.shape.data(), input.shape.size(), type);
    Ort::AllocatorWithDefaultOptions allocator;
    const Ort::AllocatedStringPtr input_name = session_.GetInputNameAllocated(0, allocator);
    const Ort::AllocatedStringPtr output_name = session_.GetOutputNameAllocated(0, allocator);
    const char* const inputs[] = {input_name.get()};
    const char* const outputs[] = {output_name.get()};
    const std::vector<Ort::Value> results = session_.Run(Ort::RunOptions{}, inputs, &value, 1, outputs, 1);
    const auto description = results[0].GetTensorTypeAndShapeInfo();
    if (description.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) throw BadUse("the output is not float32");
    const auto* output = results[0].GetTensorData<float>();
    return {output, output + description.GetElementCount()};
  }

 private:
  Ort::Env environment_{ORT_LOGGING_LEVEL_ERROR};
  Ort::Session session_;
};

}  // namespace

const char* const RUNTIME_FORMAT = "onnx";

std::unique_ptr<Runtime> open_runtime(const Artifact& artifact, const std::string& device, int num_threads) {
  if (device != "cpu" && device != "cuda") {
    throw BadUse("no device '" + device + "'", "ONNX Runtime runs on cpu, and with its GPU build on cuda");
  }
  return std::make_unique<OnnxRuntime>(artifact, device, num_threads);
}

}  // namespace vitcli
