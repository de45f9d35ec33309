// The kernels of a ViT, other than products of matrices. Layouts and meanings are those of ../gpu/device.hpp.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "device.hpp"

namespace vitcli::kernels {

constexpr int WARP = 32;
constexpr int QUERIES = 8;  // of attention that a block computes, each by a warp

// Bytes of shared memory of attention: its queries, and 32 keys and values. Rows are one number longer, so that the
// lanes of a warp read from different banks.
inline std::size_t attention_bytes(int head_dim) {
  return (QUERIES * head_dim + 2 * WARP * (head_dim + 1)) * sizeof(float);
}

__device__ inline std::size_t thread_number() { return std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; }

__device__ inline float warp_sum(float value) {
  for (int offset = WARP / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
  return value;
}

__device__ inline float warp_max(float value) {
  for (int offset = WARP / 2; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, offset));
  return value;
}

// The same for all threads of a block of at most 32 warps, each of 32 threads.
template <typename Combine>
__device__ float block_combined(float value, Combine combine, float neutral) {
  __shared__ float of_warps[WARP];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, num_warps = blockDim.x / WARP;
  value = combine(value);
  __syncthreads();  // of_warps may still be read from the last call
  if (lane == 0) of_warps[warp] = value;
  __syncthreads();
  return combine(lane < num_warps ? of_warps[lane] : neutral);
}

__device__ inline float block_sum(float value) { return block_combined(value, warp_sum, 0.0f); }
__device__ inline float block_max(float value) { return block_combined(value, warp_max, 0.0f); }

// One thread for each number of the patches.
__global__ void patches(const float* images, float* out, int rows, int columns, int size, int channels,
                        std::size_t count) {
  const std::size_t i = thread_number();
  if (i >= count) return;
  const std::size_t c = i % channels, x = i / channels % size, y = i / channels / size % size;
  const std::size_t patch = i / channels / size / size;
  const std::size_t column = patch % columns, row = patch / columns % rows, image = patch / columns / rows;
  out[i] = images[((image * rows * size + row * size + y) * columns * size + column * size + x) * channels + c];
}

__global__ void assemble(const float* prefix, const float* patches, const float* positions, float* out, int tokens,
                         int num_prefix, int width, std::size_t count) {
  const std::size_t i = thread_number();
  if (i >= count) return;
  const std::size_t d = i % width, token = i / width % tokens, image = i / width / tokens;
  if (token < num_prefix) {
    out[i] = prefix[token * width + d];
  } else {
    const std::size_t patch = token - num_prefix;
    out[i] = patches[(image * (tokens - num_prefix) + patch) * width + d] + positions[patch * width + d];
  }
}

// x (rows, width) -> y (rows, padded), filled with zeros.
__global__ void to_bf16(const float* x, __nv_bfloat16* y, int width, int padded, std::size_t count) {
  const std::size_t i = thread_number();
  if (i >= count) return;
  const std::size_t row = i / padded, column = i % padded;
  y[i] = __float2bfloat16_rn(column < width ? x[row * width + column] : 0.0f);
}

// One block for each row.
__global__ void quantize_rows(const float* x, std::int8_t* y, float* scale, int width, int padded) {
  x += std::size_t{blockIdx.x} * width;
  y += std::size_t{blockIdx.x} * padded;
  float largest = 0;
  for (int i = threadIdx.x; i < width; i += blockDim.x) largest = fmaxf(largest, fabsf(x[i]));
  const float step = block_max(largest) / 127;
  if (threadIdx.x == 0) scale[blockIdx.x] = step;
  for (int i = threadIdx.x; i < padded; i += blockDim.x) {
    y[i] = i < width ? static_cast<std::int8_t>(rintf(x[i] / (step > 0 ? step : 1.0f))) : 0;
  }
}

// For the few layers whose number of outputs is not a multiple of 4.
__global__ void multiply_i8(const std::int8_t* x, const std::int8_t* weight, std::int32_t* sums, int outputs, int inner,
                            std::size_t count) {
  const std::size_t i = thread_number();
  if (i >= count) return;
  x += i / outputs * inner;
  weight += i % outputs * inner;
  std::int32_t sum = 0;
  for (int k = 0; k < inner; ++k) sum += x[k] * weight[k];
  sums[i] = sum;
}

__global__ void scale(const std::int32_t* sums, const float* row_scale, const float* column_scale, const float* bias,
                      float* out, int columns, std::size_t count) {
  const std::size_t i = thread_number();
  if (i < count) out[i] = sums[i] * row_scale[i / columns] * column_scale[i % columns] + bias[i % columns];
}

// One block for each row; weight and bias are null together.
__global__ void layer_norm(const float* x, const float* weight, const float* bias, float* y, int width, float eps) {
  x += std::size_t{blockIdx.x} * width;
  y += std::size_t{blockIdx.x} * width;
  float sum = 0, squares = 0;
  for (int i = threadIdx.x; i < width; i += blockDim.x) sum += x[i];
  const float mean = block_sum(sum) / width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) squares += (x[i] - mean) * (x[i] - mean);
  const float factor = 1 / sqrtf(block_sum(squares) / width + eps);
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    const float value = (x[i] - mean) * factor;
    y[i] = weight ? value * weight[i] + bias[i] : value;
  }
}

__device__ inline float activated(float v, Activation activation) {
  switch (activation) {
    case Activation::gelu: return 0.5f * v * (1 + erff(v * 0.70710678f));
    case Activation::gelu_tanh: return 0.5f * v * (1 + tanhf(0.79788456f * (v + 0.044715f * v * v * v)));
    case Activation::quick_gelu: return v / (1 + expf(-1.702f * v));
    case Activation::relu: return fmaxf(v, 0.0f);
    case Activation::silu: return v / (1 + expf(-v));
    default: return tanhf(v);
  }
}

__global__ void activate(float* x, std::size_t count, Activation activation) {
  const std::size_t i = thread_number();
  if (i < count) x[i] = activated(x[i], activation);
}

__global__ void add(float* x, const float* y, std::size_t count) {
  const std::size_t i = thread_number();
  if (i < count) x[i] += y[i];
}

// Each warp computes one query of a head, and the block shares 32 keys and values at a time. The softmax goes along
// with the sum over the values, as in FlashAttention (Dao et al., 2022): when a larger score comes, what was summed so
// far is scaled down. A lane has one key while scores are computed, and every 32nd number of the head while values are
// summed.
__global__ void attention(const float* qkv, float* out, int tokens, int head_dim, bool to_self) {
  extern __shared__ float shared[];
  float *const queries = shared, *const keys = queries + QUERIES * head_dim,
               *const values = keys + WARP * (head_dim + 1);
  const int lane = threadIdx.x, warp = threadIdx.y, query = blockIdx.x * QUERIES + warp;
  const std::size_t inner = std::size_t{gridDim.y} * head_dim;
  const float* base = qkv + blockIdx.z * tokens * 3 * inner + std::size_t{blockIdx.y} * head_dim;
  for (int d = lane; d < head_dim; d += WARP) {
    queries[warp * head_dim + d] = query < tokens ? base[query * 3 * inner + d] : 0.0f;
  }
  float sums[LARGEST_HEAD_DIM / WARP] = {};
  float largest = -INFINITY, total = 0;
  for (int start = 0; start < tokens; start += WARP) {
    __syncthreads();
    for (int row = warp; row < WARP; row += QUERIES) {
      const float* from = base + (start + row) * 3 * inner + inner;
      for (int d = lane; d < head_dim; d += WARP) {
        keys[row * (head_dim + 1) + d] = start + row < tokens ? from[d] : 0.0f;
        values[row * (head_dim + 1) + d] = start + row < tokens ? from[inner + d] : 0.0f;
      }
    }
    __syncthreads();
    const bool counts = start + lane < tokens && (to_self || start + lane != query);
    float score = 0;
    for (int d = 0; d < head_dim; ++d) score += queries[warp * head_dim + d] * keys[lane * (head_dim + 1) + d];
    const float before = largest;
    largest = fmaxf(largest, warp_max(counts ? score : -INFINITY));
    if (largest == -INFINITY) continue;  // for all lanes: only this token itself was seen yet
    const float share = counts ? expf(score - largest) : 0.0f, kept = expf(before - largest);
    total = total * kept + warp_sum(share);
    for (float& sum : sums) sum *= kept;
    for (int key = 0; key < WARP; ++key) {
      const float of_key = __shfl_sync(~0u, share, key);
      for (int part = 0, d = lane; d < head_dim; ++part, d += WARP)
        sums[part] += of_key * values[key * (head_dim + 1) + d];
    }
  }
  if (query >= tokens) return;
  float* to = out + (blockIdx.z * tokens + query) * inner + std::size_t{blockIdx.y} * head_dim;
  for (int part = 0, d = lane; d < head_dim; ++part, d += WARP) to[d] = sums[part] / total;
}

// One thread for each number of the result.
__global__ void pool(const float* x, float* out, int tokens, int num_prefix, int width, Pooling pooling, int token,
                     std::size_t count) {
  const std::size_t i = thread_number();
  if (i >= count) return;
  const float* column = x + i / width * tokens * width + i % width;
  if (pooling == Pooling::token) {
    out[i] = column[std::size_t(token) * width];
    return;
  }
  float sum = 0, largest = -INFINITY;
  for (int t = num_prefix; t < tokens; ++t) {
    sum += column[std::size_t(t) * width];
    largest = fmaxf(largest, column[std::size_t(t) * width]);
  }
  const float mean = sum / (tokens - num_prefix);
  out[i] = pooling == Pooling::avg ? mean : pooling == Pooling::max ? largest : (mean + largest) / 2;
}

}  // namespace vitcli::kernels
