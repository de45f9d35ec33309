// ExecuTorch: small and without dependencies, for phones and boards; here on a CPU, with the XNNPACK kernels.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/core/error.h>
#include <executorch/runtime/platform/platform.h>

#include <cstdio>
#include <optional>

#include "errors.hpp"
#include "runtime.hpp"

namespace vitcli {
namespace {

using executorch::aten::ScalarType;
using executorch::extension::threadpool::NoThreadPoolGuard;

// The library also logs what it finds out about the processor, which users do not need.
void log_errors(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, std::size_t, const char* message,
                std::size_t) {
  if (level == kError || level == kFatal) std::fprintf(stderr, "executorch: %s\n", message);
}

class ExecuTorch : public Runtime {
 public:
  ExecuTorch(const Artifact& artifact, bool single_threaded) : module_(artifact.file.string()) {
    if (single_threaded) single_thread_.emplace();
    check(module_.load_forward(), "load " + artifact.file.string());
  }

  std::vector<float> run(const Tensor& input) override {
    const std::vector<executorch::aten::SizesType> sizes(input.shape.begin(), input.shape.end());
    const auto type = input.dtype == Dtype::uint8 ? ScalarType::Byte : ScalarType::Float;
    auto* data = const_cast<std::uint8_t*>(input.data.data());  // required by from_blob; the network only reads
    const auto result = module_.forward(executorch::extension::from_blob(data, sizes, type));
    check(result.error(), "run the network");
    const auto output = result->at(0).toTensor();
    if (output.scalar_type() != ScalarType::Float) throw BadUse("the output is not float32");
    return {output.const_data_ptr<float>(), output.const_data_ptr<float>() + output.numel()};
  }

 private:
  static void check(executorch::runtime::Error error, const std::string& what) {
    if (error == executorch::runtime::Error::Ok) return;
    throw BadUse("ExecuTorch cannot " + what + ": " + executorch::runtime::to_string(error));
  }

  std::optional<NoThreadPoolGuard> single_thread_;  // for this thread, as long as the object exists
  executorch::extension::Module module_;
};

}  // namespace

const char* const RUNTIME_FORMAT = "executorch";

std::unique_ptr<Runtime> open_runtime(const Artifact& artifact, const std::string& device, int num_threads) {
  if (device != "cpu") throw BadUse("no device '" + device + "'", "ExecuTorch runs on cpu here");
  if (num_threads > 1) {
    throw BadUse("ExecuTorch takes 1 thread or, without --threads, one per core",
                 "its Python package does not ship the header that sets another number");
  }
  executorch::runtime::register_pal(executorch::runtime::PalImpl::create(log_errors, __FILE__));
  return std::make_unique<ExecuTorch>(artifact, num_threads == 1);
}

}  // namespace vitcli
