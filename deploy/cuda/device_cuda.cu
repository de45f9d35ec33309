// A ViT on a GPU of NVIDIA: cuBLASLt multiplies matrices, and the kernels of kernels.cuh compute everything else.
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "device.hpp"
#include "errors.hpp"
#include "kernels.cuh"

namespace vitcli {
namespace {

constexpr std::size_t WORKSPACE_BYTES = 32 << 20;

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  throw BadUse(std::string("CUDA: ") + cudaGetErrorString(status),
               "see nvidia-smi for the GPU, its driver and its memory");
}

void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS) throw BadUse(std::string("cuBLASLt: ") + cublasLtGetStatusString(status));
}

// A product of cuBLASLt for one shape, with the algorithm that it recommends. cuBLASLt sees matrices column by column,
// so that a row-major (rows, n) is its (n, rows): out (outputs, rows) = weight (inputs, outputs)ᵀ · x (inputs, rows).
class Product {
 public:
  Product(cublasLtHandle_t handle, cudaDataType_t input, bool is_integer, int outputs, int inputs, int rows) {
    const cublasComputeType_t compute = is_integer ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F;
    const cudaDataType_t output = is_integer ? CUDA_R_32I : CUDA_R_32F;
    check(cublasLtMatmulDescCreate(&operation_, compute, output));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    if (!is_integer) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    check(cublasLtMatrixLayoutCreate(&weight_, input, inputs, outputs, inputs));
    check(cublasLtMatrixLayoutCreate(&x_, input, inputs, rows, inputs));
    check(cublasLtMatrixLayoutCreate(&out_, output, outputs, rows, outputs));
    find_algorithm(handle);
  }

  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  ~Product() {
    cublasLtMatrixLayoutDestroy(weight_);
    cublasLtMatrixLayoutDestroy(x_);
    cublasLtMatrixLayoutDestroy(out_);
    cublasLtMatmulDescDestroy(operation_);
  }

  // alpha and beta: 1 and 0 of the type in which is computed.
  void run(cublasLtHandle_t handle, const void* weight, const void* x, const float* bias, void* out, const void* alpha,
           const void* beta, void* workspace) {
    if (bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    check(cublasLtMatmul(handle, operation_, alpha, weight, weight_, x, x_, beta, out, out_, out, out_, &algorithm_,
                         workspace, WORKSPACE_BYTES, nullptr));
  }

 private:
  template <typename T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check(cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof(value)));
  }

  void find_algorithm(cublasLtHandle_t handle) {
    cublasLtMatmulPreference_t preference;
    check(cublasLtMatmulPreferenceCreate(&preference));
    const std::size_t limit = WORKSPACE_BYTES;
    cublasLtMatmulHeuristicResult_t best;
    int num_found = 0;
    cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                                 &limit, sizeof(limit));
    if (status == CUBLAS_STATUS_SUCCESS) {
      status =
          cublasLtMatmulAlgoGetHeuristic(handle, operation_, weight_, x_, out_, out_, preference, 1, &best, &num_found);
    }
    cublasLtMatmulPreferenceDestroy(preference);
    check(status);
    if (num_found == 0) throw BadUse("cuBLASLt has no algorithm for a layer of this network", "export it in fp32");
    algorithm_ = best.algo;
  }

  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t weight_ = nullptr, x_ = nullptr, out_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_{};
};

class CudaDevice : public Device {
 public:
  CudaDevice() {
    int count = 0;
    check(cudaGetDeviceCount(&count));
    check(cublasLtCreate(&handle_));
    workspace_ = allocate(WORKSPACE_BYTES);
  }

  ~CudaDevice() override {
    products_.clear();
    for (void* memory : memory_) cudaFree(memory);
    if (handle_) cublasLtDestroy(handle_);
  }

  void* allocate(std::size_t num_bytes) override {
    void* memory = nullptr;
    check(cudaMalloc(&memory, num_bytes));
    memory_.push_back(memory);
    return memory;
  }

  void write(void* to, const void* from, std::size_t num_bytes) override {
    check(cudaMemcpy(to, from, num_bytes, cudaMemcpyHostToDevice));
  }

  void read(void* to, const void* from, std::size_t num_bytes) override {
    check(cudaMemcpy(to, from, num_bytes, cudaMemcpyDeviceToHost));
  }

  // cuBLASLt wants rows of a multiple of 16 bytes: they are filled with zeros.
  Layer layer(const native::Matrix& weight, const std::vector<float>& scale, const std::vector<float>& bias) override {
    const std::size_t width = weight.columns * size_of(weight.type),
                      padded = padded_inputs(weight.type, weight.columns) * size_of(weight.type);
    void* copy = allocate(padded * weight.rows);
    check(cudaMemset(copy, 0, padded * weight.rows));
    check(cudaMemcpy2D(copy, padded, weight.bytes, width, width, weight.rows, cudaMemcpyHostToDevice));
    return {weight.type, weight.rows, weight.columns, copy, scale.empty() ? nullptr : copied(scale), copied(bias)};
  }

  void patches(const float* images, const PatchGrid& grid, float* out) override {
    const std::size_t area = std::size_t{1} * grid.patch_size * grid.patch_size * grid.channels;
    const std::size_t count = std::size_t{1} * grid.batch * grid.rows * grid.columns * area;
    kernels::patches<<<blocks(count), THREADS>>>(images, out, grid.rows, grid.columns, grid.patch_size, grid.channels,
                                                 count);
    check(cudaGetLastError());
  }

  void assemble(const float* prefix, const float* patches, const float* positions, const Tokens& sizes,
                float* out) override {
    const std::size_t count = std::size_t{1} * sizes.batch * sizes.count * sizes.width;
    kernels::assemble<<<blocks(count), THREADS>>>(prefix, patches, positions, out, sizes.count, sizes.prefix,
                                                  sizes.width, count);
    check(cudaGetLastError());
  }

  void linear(const float* x, int num_rows, const Layer& layer, float* out) override {
    const int inner = padded_inputs(layer.type, layer.num_inputs);
    const std::size_t count = std::size_t{1} * num_rows * inner;
    const float one = 1, zero = 0;
    if (layer.type == native::Type::f32) {
      product(CUDA_R_32F, layer, inner, num_rows)
          .run(handle_, layer.weight, x, layer.bias, out, &one, &zero, workspace_);
    } else if (layer.type == native::Type::bf16) {
      auto* rounded = static_cast<__nv_bfloat16*>(rounded_.reserve(*this, count * sizeof(__nv_bfloat16)));
      kernels::to_bf16<<<blocks(count), THREADS>>>(x, rounded, layer.num_inputs, inner, count);
      check(cudaGetLastError());
      product(CUDA_R_16BF, layer, inner, num_rows)
          .run(handle_, layer.weight, rounded, layer.bias, out, &one, &zero, workspace_);
    } else {
      linear_i8(x, num_rows, layer, inner, out);
    }
  }

  void layer_norm(const float* x, int num_rows, int width, float eps, const Affine& affine, float* out) override {
    kernels::layer_norm<<<num_rows, THREADS>>>(x, affine.weight, affine.bias, out, width, eps);
    check(cudaGetLastError());
  }

  void activate(float* x, std::size_t count, Activation activation) override {
    kernels::activate<<<blocks(count), THREADS>>>(x, count, activation);
    check(cudaGetLastError());
  }

  void add(float* x, const float* y, std::size_t count) override {
    kernels::add<<<blocks(count), THREADS>>>(x, y, count);
    check(cudaGetLastError());
  }

  void attention(const float* qkv, const Tokens& sizes, int num_heads, int head_dim, bool to_self,
                 float* out) override {
    const dim3 grid((sizes.count + kernels::QUERIES - 1) / kernels::QUERIES, num_heads, sizes.batch);
    const dim3 block(kernels::WARP, kernels::QUERIES);
    const std::size_t shared = kernels::attention_bytes(head_dim);
    kernels::attention<<<grid, block, shared>>>(qkv, out, sizes.count, head_dim, to_self);
    check(cudaGetLastError());
  }

  void pool(const float* x, const Tokens& sizes, Pooling pooling, int token, float* out) override {
    const std::size_t count = std::size_t{1} * sizes.batch * sizes.width;
    kernels::pool<<<blocks(count), THREADS>>>(x, out, sizes.count, sizes.prefix, sizes.width, pooling, token, count);
    check(cudaGetLastError());
  }

 private:
  static constexpr int THREADS = 256;

  // Memory that grows.
  struct Scratch {
    void* memory = nullptr;
    std::size_t size = 0;

    void* reserve(CudaDevice& device, std::size_t num_bytes) {
      if (num_bytes > size) memory = device.allocate(size = num_bytes);
      return memory;
    }
  };

  static unsigned blocks(std::size_t count) { return static_cast<unsigned>((count + THREADS - 1) / THREADS); }

  static int padded_inputs(native::Type type, int inputs) {
    const int step = type == native::Type::f32 ? 1 : type == native::Type::bf16 ? 8 : 16;
    return (inputs + step - 1) / step * step;
  }

  static std::size_t size_of(native::Type type) {
    return type == native::Type::f32 ? 4 : type == native::Type::bf16 ? 2 : 1;
  }

  const float* copied(const std::vector<float>& values) {
    void* copy = allocate(values.size() * sizeof(float));
    write(copy, values.data(), values.size() * sizeof(float));
    return static_cast<const float*>(copy);
  }

  void linear_i8(const float* x, int num_rows, const Layer& layer, int inner, float* out) {
    auto* rounded = static_cast<std::int8_t*>(rounded_.reserve(*this, std::size_t{1} * num_rows * inner));
    auto* row_scale = static_cast<float*>(row_scale_.reserve(*this, num_rows * sizeof(float)));
    const std::size_t count = std::size_t{1} * num_rows * layer.num_outputs;
    auto* sums = static_cast<std::int32_t*>(sums_.reserve(*this, count * sizeof(std::int32_t)));
    kernels::quantize_rows<<<num_rows, THREADS>>>(x, rounded, row_scale, layer.num_inputs, inner);
    check(cudaGetLastError());
    if (layer.num_outputs % 4 == 0) {
      const std::int32_t one = 1, zero = 0;
      product(CUDA_R_8I, layer, inner, num_rows)
          .run(handle_, layer.weight, rounded, nullptr, sums, &one, &zero, workspace_);
    } else {
      kernels::multiply_i8<<<blocks(count), THREADS>>>(rounded, static_cast<const std::int8_t*>(layer.weight), sums,
                                                       layer.num_outputs, inner, count);
      check(cudaGetLastError());
    }
    kernels::scale<<<blocks(count), THREADS>>>(sums, row_scale, layer.scale, layer.bias, out, layer.num_outputs, count);
    check(cudaGetLastError());
  }

  Product& product(cudaDataType_t type, const Layer& layer, int inner, int num_rows) {
    const auto key = std::make_tuple(static_cast<int>(type), layer.num_outputs, inner, num_rows);
    const auto found = products_.find(key);
    if (found != products_.end()) return found->second;
    return products_.try_emplace(key, handle_, type, type == CUDA_R_8I, layer.num_outputs, inner, num_rows)
        .first->second;
  }

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::vector<void*> memory_;
  std::map<std::tuple<int, int, int, int>, Product> products_;
  Scratch rounded_, row_scale_, sums_;
};

}  // namespace

// The first GPU; CUDA_VISIBLE_DEVICES in the environment chooses another. "cpu" is the default of an artifact.
std::unique_ptr<Device> open_device(const std::string& name) {
  if (name != "cuda" && name != "cpu")
    throw BadUse("no device " + name, "give cuda, or choose by CUDA_VISIBLE_DEVICES");
  return std::make_unique<CudaDevice>();
}

}  // namespace vitcli
