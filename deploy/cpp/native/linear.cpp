#include "linear.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace vitcli::native {
namespace {

// Rows that are multiplied by one panel before the next one: they stay in the cache.
constexpr int ROWS_AT_ONCE = 192;

int per_unit(Encoding encoding) {
  switch (encoding) {
    case Encoding::int8: return 4;
    case Encoding::bf16:
    case Encoding::int16: return 2;
    default: return 1;
  }
}

int parts(int whole, int size) { return (whole + size - 1) / size; }

}  // namespace

void Buffer::reserve(std::size_t bytes) {
  if (bytes_.size() >= bytes + 64) return;
  bytes_.resize(bytes + 64);
  start_ = bytes_.data() + (64 - reinterpret_cast<std::uintptr_t>(bytes_.data()) % 64) % 64;
}

Linear::Linear(const Network& network, const std::string& name, int outputs, int inputs)
    : outputs_(outputs), inputs_(inputs), bias_(network.floats(name + ".bias", {outputs})) {
  const Matrix weight = network.matrix(name + ".weight", outputs, inputs);
  const std::size_t filled = std::size_t{1} * parts(outputs, kernels().panel) * kernels().panel;
  encoding_ = weight.type == Type::f32 ? Encoding::floats : weight.type == Type::bf16 ? kernels().bf16 : kernels().int8;
  units_ = parts(inputs, per_unit(encoding_));
  bias_.resize(filled);
  if (weight.type == Type::int8) {
    scale_ = network.floats(name + ".scale", {outputs});
    scale_.resize(filled);
  }
  if (encoding_ == Encoding::int8) {  // its left factor is 128 too large
    offsets_.resize(filled);
    for (int row = 0; row < outputs; ++row)
      for (int column = 0; column < inputs; ++column) offsets_[row] += 128 * weight.whole_at(row, column);
  }
  pack(weight);
}

void Linear::pack(const Matrix& weight) {
  const int panel = kernels().panel, each = per_unit(encoding_);
  const std::size_t size = std::size_t{4} * parts(outputs_, panel) * panel * units_;
  panels_.reserve(size);
  auto* bytes = panels_.as<std::uint8_t>();
  std::memset(bytes, 0, size);
  for (int row = 0; row < outputs_; ++row) {
    for (int column = 0; column < inputs_; ++column) {
      const std::size_t unit = (std::size_t{1} * (row / panel) * units_ + column / each) * panel + row % panel;
      std::uint8_t* const place = bytes + 4 * unit + column % each * (4 / each);
      if (weight.type == Type::int8) {
        const std::int16_t value = weight.whole_at(row, column);
        std::memcpy(place, &value, 4 / each);  // little-endian: the lower byte alone is the int8
      } else {
        const float value = weight.at(row, column);
        std::memcpy(place, reinterpret_cast<const std::uint8_t*>(&value) + 4 - 4 / each, 4 / each);
      }
    }
  }
}

void Linear::run(const float* x, int rows, std::size_t stride, float* y, Threads& threads, Activation activation,
                 bool adds) {
  const Kernels& use = kernels();
  const void* left = x;
  std::size_t left_stride = stride;
  if (encoding_ != Encoding::floats) {
    encoded_.reserve(std::size_t{4} * rows * units_);
    row_scale_.resize(rows);
    const int blocks = parts(rows, 16);
    threads.run(blocks, [&](int block) {
      for (int row = block * 16; row < std::min(block * 16 + 16, rows); ++row) {
        std::uint32_t* const to = encoded_.as<std::uint32_t>() + std::size_t{1} * row * units_;
        row_scale_[row] = use.encode(encoding_, x + row * stride, inputs_, to);
      }
    });
    left = encoded_.as<void>();
    left_stride = units_;
  }
  const int panels = parts(outputs_, use.panel), blocks = parts(rows, ROWS_AT_ONCE);
  threads.run(panels * blocks, [&](int part) {
    const int panel = part % panels, first = part / panels * ROWS_AT_ONCE, column = panel * use.panel;
    Epilogue to;
    to.bias = bias_.data() + column;
    to.column_scale = scale_.empty() ? nullptr : scale_.data() + column;
    to.row_scale = row_scale_.data() + first;
    to.offsets = offsets_.empty() ? nullptr : offsets_.data() + column;
    to.activation = activation;
    to.adds = adds;
    use.multiply(encoding_, static_cast<const std::uint32_t*>(left) + first * left_stride, left_stride,
                 panels_.as<std::uint32_t>() + std::size_t{1} * column * units_, std::min(ROWS_AT_ONCE, rows - first),
                 units_, std::min(use.panel, outputs_ - column), y + std::size_t{1} * first * outputs_ + column,
                 static_cast<std::size_t>(outputs_), to);
  });
}

namespace {

constexpr int QUERIES_AT_ONCE = 48;

}  // namespace

void Attention::run(const float* qkv, int tokens, int queries, float* output, Threads& threads) {
  const int panel = kernels().panel;
  keys_floats_ = std::size_t{1} * parts(tokens, panel) * panel * head_dim_;
  head_floats_ = keys_floats_ + std::size_t{1} * parts(head_dim_, panel) * panel * tokens;
  packed_.reserve(4 * head_floats_ * heads_);
  threads.run(heads_, [&](int head) { pack(qkv, tokens, head); });

  const int blocks = parts(queries, QUERIES_AT_ONCE), num_parts = heads_ * blocks;
  const std::size_t floats = std::size_t{QUERIES_AT_ONCE} * tokens;
  scores_.reserve(4 * floats * threads.count());
  // one part of the memory for the scores per thread: the parts are dealt out in advance
  threads.run(threads.count(), [&](int thread) {
    for (int part = thread; part < num_parts; part += threads.count()) {
      const int first = part % blocks * QUERIES_AT_ONCE;
      answer(qkv, tokens, first, std::min(QUERIES_AT_ONCE, queries - first), part / blocks, output,
             scores_.as<float>() + floats * thread);
    }
  });
}

// Keys (panels of tokens, head_dim) and values (panels of head_dim, tokens) of a head.
void Attention::pack(const float* qkv, int tokens, int head) {
  const int panel = kernels().panel, width = heads_ * head_dim_;
  float* const keys = packed_.as<float>() + head_floats_ * head;
  float* const values = keys + keys_floats_;
  std::memset(keys, 0, 4 * head_floats_);
  for (int token = 0; token < tokens; ++token) {
    const float* const key = qkv + (std::size_t{3} * token + 1) * width + head * head_dim_;
    const float* const value = key + width;
    float* const to = keys + std::size_t{1} * (token / panel) * panel * head_dim_ + token % panel;
    for (int i = 0; i < head_dim_; ++i) to[std::size_t{1} * i * panel] = key[i];
    for (int i = 0; i < head_dim_; i += panel) {
      float* const row = values + std::size_t{1} * i * tokens + std::size_t{1} * token * panel;
      std::memcpy(row, value + i, 4 * std::min(panel, head_dim_ - i));
    }
  }
}

void Attention::answer(const float* qkv, int tokens, int first, int count, int head, float* output,
                       float* scores) const {
  const Kernels& use = kernels();
  const int panel = use.panel, width = heads_ * head_dim_;
  const float* const keys = packed_.as<float>() + head_floats_ * head;
  const float* const values = keys + keys_floats_;
  const float* const queries = qkv + std::size_t{3} * first * width + head * head_dim_;
  for (int token = 0; token < tokens; token += panel) {
    use.multiply(Encoding::floats, queries, std::size_t{3} * width, keys + std::size_t{1} * token * head_dim_, count,
                 head_dim_, std::min(panel, tokens - token), scores + token, tokens, {});
  }
  float totals[QUERIES_AT_ONCE];
  for (int query = 0; query < count; ++query) {
    float* const row = scores + std::size_t{1} * query * tokens;
    if (!self_ && tokens > 1) row[first + query] = -std::numeric_limits<float>::infinity();
    totals[query] = use.exponentials(row, tokens);
    if (!self_ && tokens > 1) row[first + query] = 0;  // the smallest power that is computed is not exactly 0
  }
  float* const answers = output + std::size_t{1} * first * width + head * head_dim_;
  for (int i = 0; i < head_dim_; i += panel) {
    use.multiply(Encoding::floats, scores, tokens, values + std::size_t{1} * i * tokens, count, tokens,
                 std::min(panel, head_dim_ - i), answers + i, width, {});
  }
  for (int query = 0; query < count; ++query)
    for (int i = 0; i < head_dim_; ++i) answers[std::size_t{1} * query * width + i] /= totals[query];
}

}  // namespace vitcli::native
