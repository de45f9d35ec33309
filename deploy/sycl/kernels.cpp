// The kernels of device_sycl.cpp: free functions, compiled when the program runs, so that any C++ compiler builds the
// program and any device that the SYCL runtime knows runs it.
#include <sycl/sycl.hpp>

namespace ext = sycl::ext::oneapi;

#define KERNEL(dimensions) \
  extern "C" SYCL_EXT_ONEAPI_FUNCTION_PROPERTY((ext::experimental::nd_range_kernel<dimensions>)) void

constexpr int TILE_ROWS = 8, LANES = 16, TILE_COLUMNS = 48;  // the same in device_sycl.cpp
constexpr int LARGEST_HEAD_DIM = 128;

// Rounded to bfloat16, to nearest, ties to even.
inline float to_bf16(float x) {
  const unsigned bits = sycl::bit_cast<unsigned>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return x;  // NaN
  return sycl::bit_cast<float>((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

inline float from_bf16(unsigned short half) { return sycl::bit_cast<float>(static_cast<unsigned>(half) << 16); }

// y = x · w + bias: x (rows, inner), w (inner, padded), y (rows, columns). Each work-item computes 8 rows of 3 columns.
template <typename Sum, typename Left, typename Weight, typename X, typename W>
inline void multiply(const X* x, const W* w, int rows, int columns, int padded, int inner, Sum (&sums)[TILE_ROWS][3],
                     Left left, Weight weight) {
  const auto item = ext::this_work_item::get_nd_item<2>();
  const int row = item.get_group(0) * TILE_ROWS, column = item.get_group(1) * TILE_COLUMNS + item.get_local_id(1);
  const X* lines[TILE_ROWS];
  for (int r = 0; r < TILE_ROWS; ++r) lines[r] = x + static_cast<size_t>(sycl::min(row + r, rows - 1)) * inner;
  for (int k = 0; k < inner; ++k) {
    const W* line = w + static_cast<size_t>(k) * padded + column;
    const Sum w0 = weight(line[0]), w1 = weight(line[LANES]), w2 = weight(line[2 * LANES]);
#pragma unroll
    for (int r = 0; r < TILE_ROWS; ++r) {
      const Sum value = left(lines[r][k]);
      sums[r][0] += value * w0;
      sums[r][1] += value * w1;
      sums[r][2] += value * w2;
    }
  }
}

template <typename Sum, typename Value>
inline void store(const Sum (&sums)[TILE_ROWS][3], int rows, int columns, float* y, Value value) {
  const auto item = ext::this_work_item::get_nd_item<2>();
  const int row = item.get_group(0) * TILE_ROWS, column = item.get_group(1) * TILE_COLUMNS + item.get_local_id(1);
  for (int r = 0; r < TILE_ROWS && row + r < rows; ++r) {
    for (int part = 0; part < 3; ++part) {
      const int j = column + part * LANES;
      if (j < columns) y[static_cast<size_t>(row + r) * columns + j] = value(sums[r][part], row + r, j);
    }
  }
}

KERNEL(2)
linear_f32(const float* x, const float* w, const float* bias, float* y, int rows, int columns, int padded, int inner) {
  float sums[TILE_ROWS][3] = {};
  const auto same = [](float number) { return number; };
  multiply(x, w, rows, columns, padded, inner, sums, same, same);
  store(sums, rows, columns, y, [=](float sum, int, int j) { return sum + bias[j]; });
}

KERNEL(2)
linear_bf16(const float* x, const unsigned short* w, const float* bias, float* y, int rows, int columns, int padded,
            int inner) {
  float sums[TILE_ROWS][3] = {};
  const auto left = [](float number) { return to_bf16(number); };
  const auto weight = [](unsigned short number) { return from_bf16(number); };
  multiply(x, w, rows, columns, padded, inner, sums, left, weight);
  store(sums, rows, columns, y, [=](float sum, int, int j) { return sum + bias[j]; });
}

KERNEL(2)
linear_i8(const signed char* x, const float* x_scale, const signed char* w, const float* scale, const float* bias,
          float* y, int rows, int columns, int padded, int inner) {
  int sums[TILE_ROWS][3] = {};
  const auto wide = [](signed char number) { return static_cast<int>(number); };
  multiply(x, w, rows, columns, padded, inner, sums, wide, wide);
  store(sums, rows, columns, y, [=](int sum, int i, int j) { return sum * x_scale[i] * scale[j] + bias[j]; });
}

// Each row of x as whole numbers of its largest magnitude / 127, which becomes its scale. A row of zeros has the scale
// 0.
KERNEL(1) quantize_rows(const float* x, signed char* y, float* scale, int rows, int width) {
  const size_t row = ext::this_work_item::get_nd_item<1>().get_global_linear_id();
  if (row >= static_cast<size_t>(rows)) return;
  x += row * width;
  y += row * width;
  float largest = 0;
  for (int i = 0; i < width; ++i) largest = sycl::fmax(largest, sycl::fabs(x[i]));
  const float step = largest / 127;
  scale[row] = step;
  for (int i = 0; i < width; ++i) y[i] = static_cast<signed char>(sycl::rint(x[i] / (step > 0 ? step : 1.0f)));
}

// weight and bias are null together.
KERNEL(1) layer_norm(const float* x, const float* weight, const float* bias, float* y, int rows, int width, float eps) {
  const size_t row = ext::this_work_item::get_nd_item<1>().get_global_linear_id();
  if (row >= static_cast<size_t>(rows)) return;
  x += row * width;
  y += row * width;
  float mean = 0, variance = 0;
  for (int i = 0; i < width; ++i) mean += x[i];
  mean /= width;
  for (int i = 0; i < width; ++i) variance += (x[i] - mean) * (x[i] - mean);
  const float factor = 1 / sycl::sqrt(variance / width + eps);
  for (int i = 0; i < width; ++i) {
    const float value = (x[i] - mean) * factor;
    y[i] = weight ? value * weight[i] + bias[i] : value;
  }
}

// kind: the order of Activation in device.hpp.
KERNEL(1) activate(float* x, size_t count, int kind) {
  const size_t i = ext::this_work_item::get_nd_item<1>().get_global_linear_id();
  if (i >= count) return;
  const float v = x[i];
  switch (kind) {
    case 0: x[i] = 0.5f * v * (1 + sycl::erf(v * 0.70710678f)); break;
    case 1: x[i] = 0.5f * v * (1 + sycl::tanh(0.79788456f * (v + 0.044715f * v * v * v))); break;
    case 2: x[i] = v / (1 + sycl::exp(-1.702f * v)); break;
    case 3: x[i] = sycl::fmax(v, 0.0f); break;
    case 4: x[i] = v / (1 + sycl::exp(-v)); break;
    default: x[i] = sycl::tanh(v);
  }
}

KERNEL(1) add(float* x, const float* y, size_t count) {
  const size_t i = ext::this_work_item::get_nd_item<1>().get_global_linear_id();
  if (i < count) x[i] += y[i];
}

// One work-item for each number of the patches.
KERNEL(1) patches(const float* images, float* out, int rows, int columns, int size, int channels, size_t count) {
  const size_t i = ext::this_work_item::get_nd_item<1>().get_global_linear_id();
  if (i >= count) return;
  const size_t c = i % channels, x = i / channels % size, y = i / channels / size % size;
  const size_t patch = i / channels / size / size;
  const size_t column = patch % columns, row = patch / columns % rows, image = patch / columns / rows;
  out[i] = images[((image * rows * size + row * size + y) * columns * size + column * size + x) * channels + c];
}

KERNEL(1)
assemble(const float* prefix, const float* patches, const float* positions, float* out, int tokens, int num_prefix,
         int width, size_t count) {
  const size_t i = ext::this_work_item::get_nd_item<1>().get_global_linear_id();
  if (i >= count) return;
  const size_t d = i % width, token = i / width % tokens, image = i / width / tokens;
  if (token < static_cast<size_t>(num_prefix)) {
    out[i] = prefix[token * width + d];
  } else {
    const size_t patch = token - num_prefix;
    out[i] = patches[(image * (tokens - num_prefix) + patch) * width + d] + positions[patch * width + d];
  }
}

// One work-item for each query of each head; the softmax goes along with the sum over the values, as in FlashAttention
// (Dao et al., 2022): when a larger score comes, what was summed so far is scaled down.
KERNEL(1) attention(const float* qkv, float* out, int tokens, int heads, int head_dim, int to_self, size_t count) {
  const size_t i = ext::this_work_item::get_nd_item<1>().get_global_linear_id();
  if (i >= count) return;
  const int query = i % tokens, head = i / tokens % heads;
  const size_t image = i / tokens / heads, inner = static_cast<size_t>(heads) * head_dim;
  const float* base = qkv + image * tokens * 3 * inner + static_cast<size_t>(head) * head_dim;
  const float* q = base + query * 3 * inner;
  float sums[LARGEST_HEAD_DIM] = {};
  float largest = -__builtin_inff(), total = 0;
  for (int key = 0; key < tokens; ++key) {
    if (key == query && !to_self) continue;
    const float *k = base + key * 3 * inner + inner, *v = k + inner;
    float score = 0;
    for (int d = 0; d < head_dim; ++d) score += q[d] * k[d];
    const float before = largest;
    largest = sycl::fmax(largest, score);
    const float kept = sycl::exp(before - largest), share = sycl::exp(score - largest);
    total = total * kept + share;
    for (int d = 0; d < head_dim; ++d) sums[d] = sums[d] * kept + share * v[d];
  }
  float* to = out + (image * tokens + query) * inner + static_cast<size_t>(head) * head_dim;
  for (int d = 0; d < head_dim; ++d) to[d] = sums[d] / total;
}

// kind: the order of Pooling in device.hpp.
KERNEL(1) pool(const float* x, float* out, int tokens, int num_prefix, int width, int kind, int token, size_t count) {
  const size_t i = ext::this_work_item::get_nd_item<1>().get_global_linear_id();
  if (i >= count) return;
  const float* column = x + i / width * tokens * width + i % width;
  if (kind == 0) {
    out[i] = column[static_cast<size_t>(token) * width];
    return;
  }
  float sum = 0, largest = -__builtin_inff();
  for (int t = num_prefix; t < tokens; ++t) {
    const float value = column[static_cast<size_t>(t) * width];
    sum += value;
    largest = sycl::fmax(largest, value);
  }
  const float mean = sum / (tokens - num_prefix);
  out[i] = kind == 1 ? mean : kind == 2 ? largest : (mean + largest) / 2;
}
