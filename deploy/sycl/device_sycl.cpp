// A ViT by SYCL: on CPUs by OpenCL, on Intel's GPUs by Level Zero. The kernels, kernels.cpp, are compiled when the
// program starts; SYCL_CACHE_PERSISTENT=1 in the environment keeps the result for the next start.
#include <cstring>
#include <sycl/sycl.hpp>
#include <vector>

#include "device.hpp"
#include "errors.hpp"
#include "kernels.inc"  // KERNELS, the text of kernels.cpp

namespace vitcli {
namespace {

namespace exp = sycl::ext::oneapi::experimental;

constexpr int TILE_ROWS = 8, LANES = 16, TILE_COLUMNS = 48;  // the same in kernels.cpp
constexpr std::size_t GROUP = 64;

int rounded_up(int count, int step) { return (count + step - 1) / step * step; }

sycl::device device_named(const std::string& name) {
  try {
    if (name == "gpu") return sycl::device(sycl::gpu_selector_v);
    if (name == "cpu") return sycl::device(sycl::cpu_selector_v);
  } catch (const sycl::exception&) {
    throw BadUse("the SYCL runtime finds no " + name, "install its driver, or give another --device");
  }
  throw BadUse("no device " + name, "give cpu or gpu");
}

sycl::kernel_bundle<sycl::bundle_state::executable> compiled(const sycl::queue& queue) {
  if (!queue.get_device().ext_oneapi_can_compile(exp::source_language::sycl)) {
    throw BadUse("this device cannot compile SYCL at run time",
                 "install the compiler of the SYCL runtime, libsycl-jit.so");
  }
  std::string log;
  try {
    auto source =
        exp::create_kernel_bundle_from_source(queue.get_context(), exp::source_language::sycl, std::string(KERNELS));
    return exp::build(source, exp::properties{exp::save_log{&log}});
  } catch (const sycl::exception& error) {
    throw BadUse(std::string("the kernels do not compile: ") + error.what() + log);
  }
}

// The transpose (inputs, padded) of a weight (outputs, inputs): neighboring work-items read neighboring numbers.
template <typename T>
std::vector<T> transposed(const native::Matrix& weight, int padded) {
  const std::size_t outputs = weight.rows, inputs = weight.columns;
  std::vector<T> row(inputs), result(inputs * padded);
  for (std::size_t j = 0; j < outputs; ++j) {
    std::memcpy(row.data(), weight.bytes + j * inputs * sizeof(T), inputs * sizeof(T));
    for (std::size_t k = 0; k < inputs; ++k) result[k * padded + j] = row[k];
  }
  return result;
}

class SyclDevice : public Device {
 public:
  explicit SyclDevice(const std::string& name)
      : queue_(device_named(name), sycl::property::queue::in_order{}), bundle_(compiled(queue_)) {}

  ~SyclDevice() override {
    for (void* memory : memory_) sycl::free(memory, queue_);
  }

  void* allocate(std::size_t num_bytes) override {
    void* memory = sycl::malloc_device(num_bytes, queue_);
    if (!memory) throw BadUse("the device has too little memory: " + std::to_string(num_bytes) + " bytes are needed");
    memory_.push_back(memory);
    return memory;
  }

  void write(void* to, const void* from, std::size_t num_bytes) override { queue_.memcpy(to, from, num_bytes).wait(); }

  void read(void* to, const void* from, std::size_t num_bytes) override { queue_.memcpy(to, from, num_bytes).wait(); }

  Layer layer(const native::Matrix& weight, const std::vector<float>& scale, const std::vector<float>& bias) override {
    const int padded = rounded_up(weight.rows, TILE_COLUMNS);
    const void* copy = nullptr;
    switch (weight.type) {
      case native::Type::f32: copy = copied(transposed<float>(weight, padded)); break;
      case native::Type::bf16: copy = copied(transposed<std::uint16_t>(weight, padded)); break;
      case native::Type::int8: copy = copied(transposed<std::int8_t>(weight, padded)); break;
    }
    return {weight.type, weight.rows, weight.columns, copy, scale.empty() ? nullptr : copied(scale), copied(bias)};
  }

  void patches(const float* images, const PatchGrid& grid, float* out) override {
    const std::size_t area = std::size_t{1} * grid.patch_size * grid.patch_size * grid.channels;
    const std::size_t count = std::size_t{1} * grid.batch * grid.rows * grid.columns * area;
    each(count, "patches", images, out, grid.rows, grid.columns, grid.patch_size, grid.channels, count);
  }

  void assemble(const float* prefix, const float* patches, const float* positions, const Tokens& sizes,
                float* out) override {
    const std::size_t count = std::size_t{1} * sizes.batch * sizes.count * sizes.width;
    each(count, "assemble", prefix, patches, positions, out, sizes.count, sizes.prefix, sizes.width, count);
  }

  void linear(const float* x, int num_rows, const Layer& layer, float* out) override {
    const int columns = layer.num_outputs, inner = layer.num_inputs, padded = rounded_up(columns, TILE_COLUMNS);
    const auto run = [&](const char* name, auto... arguments) {
      const std::size_t down = rounded_up(num_rows, TILE_ROWS) / TILE_ROWS, across = padded / TILE_COLUMNS;
      submit(sycl::nd_range<2>({down, across * LANES}, {1, LANES}), name, arguments...);
    };
    const void* weight = layer.weight;
    if (layer.type == native::Type::int8) {
      reserve_rounded(std::size_t{1} * num_rows * inner, num_rows);
      each(num_rows, "quantize_rows", x, rounded_, row_scale_, num_rows, inner);
      run("linear_i8", rounded_, row_scale_, static_cast<const std::int8_t*>(weight), layer.scale, layer.bias, out,
          num_rows, columns, padded, inner);
    } else if (layer.type == native::Type::bf16) {
      run("linear_bf16", x, static_cast<const std::uint16_t*>(weight), layer.bias, out, num_rows, columns, padded,
          inner);
    } else {
      run("linear_f32", x, static_cast<const float*>(weight), layer.bias, out, num_rows, columns, padded, inner);
    }
  }

  void layer_norm(const float* x, int num_rows, int width, float eps, const Affine& affine, float* out) override {
    each(num_rows, "layer_norm", x, affine.weight, affine.bias, out, num_rows, width, eps);
  }

  void activate(float* x, std::size_t count, Activation activation) override {
    each(count, "activate", x, count, static_cast<int>(activation));
  }

  void add(float* x, const float* y, std::size_t count) override { each(count, "add", x, y, count); }

  void attention(const float* qkv, const Tokens& sizes, int num_heads, int head_dim, bool to_self,
                 float* out) override {
    const std::size_t count = std::size_t{1} * sizes.batch * sizes.count * num_heads;
    each(count, "attention", qkv, out, sizes.count, num_heads, head_dim, static_cast<int>(to_self), count);
  }

  void pool(const float* x, const Tokens& sizes, Pooling pooling, int token, float* out) override {
    const std::size_t count = std::size_t{1} * sizes.batch * sizes.width;
    each(count, "pool", x, out, sizes.count, sizes.prefix, sizes.width, static_cast<int>(pooling), token, count);
  }

 private:
  // A kernel with one work-item for each of `count`, and as many as fill the last group.
  template <typename... Arguments>
  void each(std::size_t count, const char* name, Arguments... arguments) {
    submit(sycl::nd_range<1>((count + GROUP - 1) / GROUP * GROUP, GROUP), name, arguments...);
  }

  template <int Dimensions, typename... Arguments>
  void submit(const sycl::nd_range<Dimensions>& range, const char* name, Arguments... arguments) {
    const sycl::kernel kernel = bundle_.ext_oneapi_get_kernel(name);
    queue_.submit([&](sycl::handler& handler) {
      handler.set_args(arguments...);
      handler.parallel_for(range, kernel);
    });
  }

  template <typename T>
  T* copied(const std::vector<T>& numbers) {
    const std::size_t num_bytes = numbers.size() * sizeof(T);
    void* copy = allocate(num_bytes);
    write(copy, numbers.data(), num_bytes);
    return static_cast<T*>(copy);
  }

  // Memory for the rows of int8 that a matrix of int8 is multiplied with.
  void reserve_rounded(std::size_t count, std::size_t num_rows) {
    if (count > num_rounded_) rounded_ = static_cast<std::int8_t*>(allocate(num_rounded_ = count));
    if (num_rows > num_scales_) row_scale_ = static_cast<float*>(allocate((num_scales_ = num_rows) * sizeof(float)));
  }

  sycl::queue queue_;
  sycl::kernel_bundle<sycl::bundle_state::executable> bundle_;
  std::vector<void*> memory_;
  std::int8_t* rounded_ = nullptr;
  float* row_scale_ = nullptr;
  std::size_t num_rounded_ = 0, num_scales_ = 0;
};

}  // namespace

std::unique_ptr<Device> open_device(const std::string& name) { return std::make_unique<SyclDevice>(name); }

}  // namespace vitcli
