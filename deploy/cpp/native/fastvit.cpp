// FastViT, in the steps of docs/native.md.
#include <algorithm>

#include "linear.hpp"
#include "model.hpp"

namespace vitcli::native {
namespace {

constexpr int LEAST_CHANNELS = 16;  // as many as the widest vector

// A feature map (height, width, channels).
struct Map {
  int height = 0, width = 0, channels = 0;
  std::vector<float> values;

  int positions() const { return height * width; }

  void resize(int new_height, int new_width, int new_channels) {
    height = new_height;
    width = new_width;
    channels = new_channels;
    values.resize(std::size_t{1} * height * width * channels);
  }
};

class DepthwiseConv {
 public:
  DepthwiseConv(const Network& network, const std::string& name, int size, int channels, int outputs, int stride = 1)
      : size_(size),
        outputs_(outputs),
        stride_(stride),
        weight_(network.floats(name + ".weight", {size, size, outputs})),
        bias_(network.floats(name + ".bias", {outputs})) {
    if (outputs % channels != 0) throw KeyValueError(name + " has no whole number of filters per channel");
  }

  void run(const Map& x, Map& y, Threads& threads) const {
    y.resize((x.height + stride_ - 1) / stride_, (x.width + stride_ - 1) / stride_, outputs_);
    const Depthwise to{x.values.data(), weight_.data(), bias_.data(), y.values.data(), x.height,
                       x.width,         x.channels,     outputs_,     size_,           stride_};
    threads.run(y.height, [&](int row) { kernels().depthwise(to, row); });
  }

 private:
  int size_, outputs_, stride_;
  std::vector<float> weight_, bias_;
};

void pointwise(Linear& layer, const Map& x, Map& y, Threads& threads, Activation activation, bool adds = false) {
  y.resize(x.height, x.width, layer.outputs());
  layer.run(x.values.data(), x.positions(), y.values.data(), threads, activation, adds);
}

struct Block {
  Block(const Network& network, const std::string& name, int channels, bool attends)
      : conv(network, name + ".conv", 7, channels, channels),
        fc1(network, name + ".fc1", network.shape(name + ".fc1.bias").front(), channels),
        fc2(network, name + ".fc2", channels, fc1.outputs()) {
    if (attends) {
      qkv_and_proj.emplace_back(network, name + ".qkv", 3 * channels, channels);
      qkv_and_proj.emplace_back(network, name + ".proj", channels, channels);
    } else {
      mixer.emplace_back(network, name + ".mixer", 3, channels, channels);
    }
  }

  std::vector<DepthwiseConv> mixer;  // one, or
  std::vector<Linear> qkv_and_proj;  // two, of a stage with attention
  DepthwiseConv conv;
  Linear fc1, fc2;
};

struct Stage {
  std::vector<DepthwiseConv> down, positions;  // none or one each
  std::vector<Linear> widen;                   // one if there is `down`
  std::vector<Attention> attention;            // none or one, for all blocks
  std::vector<Block> blocks;
};

class FastVit : public Model {
 public:
  explicit FastVit(const Network& network)
      : height_(network.size("image_height")),
        width_(network.size("image_width")),
        channels_(network.size("in_channels")),
        dim_(network.shape("stem.0.bias").front()),
        first_(network, "stem.0", dim_, 9 * channels_),
        second_(network, "stem.1", 3, dim_, dim_, 2),
        third_(network, "stem.2", dim_, dim_) {
    if (dim_ < LEAST_CHANNELS) throw KeyValueError("a FastViT of fewer than 16 channels is unknown to this program");
    const std::vector<int> depths = network.sizes("depths"), attends = network.sizes("attention_stages");
    if (depths.empty() || depths.size() > 16 || attends.size() != depths.size())
      throw KeyValueError("depths and attention_stages do not fit");
    int channels = dim_;
    for (std::size_t i = 0; i < depths.size(); ++i)
      channels = add_stage(network, i, channels, depths[i], attends[i] == 1);
    const int outputs = network.shape("final.bias").front();
    final_.emplace_back(network, "final", 3, channels, outputs);
    gate_.emplace_back(network, "gate.fc1", network.shape("gate.fc1.bias").front(), outputs);
    gate_.emplace_back(network, "gate.fc2", outputs, gate_[0].outputs());
    head_.emplace_back(network, "head", network.size("num_classes"), outputs);
  }

  std::vector<float> run(const std::vector<float>& image, Threads& threads) override {
    stem(image, threads);
    for (Stage& stage : stages_) {
      if (!stage.down.empty()) {
        stage.down[0].run(x_, other_, threads);
        pointwise(stage.widen[0], other_, x_, threads, Activation::gelu);
      }
      if (!stage.positions.empty()) {
        stage.positions[0].run(x_, other_, threads);
        std::swap(x_, other_);
      }
      for (Block& block : stage.blocks) apply(stage, block, threads);
    }
    final_[0].run(x_, other_, threads);
    return classified(threads);
  }

 private:
  // Returns the number of its channels.
  int add_stage(const Network& network, std::size_t number, int channels, int depth, bool attends) {
    const std::string name = "stages." + std::to_string(number);
    Stage& stage = stages_.emplace_back();
    if (number > 0) {
      const int outputs = network.shape(name + ".down.bias").front();
      stage.down.emplace_back(network, name + ".down", 7, channels, outputs, 2);
      channels = network.shape(name + ".widen.bias").front();
      if (channels < LEAST_CHANNELS) throw KeyValueError(name + " has fewer than 16 channels");
      stage.widen.emplace_back(network, name + ".widen", channels, outputs);
    }
    if (attends) {
      stage.positions.emplace_back(network, name + ".positions", 7, channels, channels);
      const int head_dim = network.size("head_dim", 1, 4096);
      if (channels % head_dim != 0) throw KeyValueError(name + " cannot be split into heads");
      stage.attention.emplace_back(channels / head_dim, head_dim, true);
    }
    for (int i = 0; i < depth; ++i)
      stage.blocks.emplace_back(network, name + ".blocks." + std::to_string(i), channels, attends);
    return channels;
  }

  void stem(const std::vector<float>& image, Threads& threads) {
    const int height = (height_ + 1) / 2, width = (width_ + 1) / 2;
    hidden_.resize(height, width, 9 * channels_);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        for (int row = 0; row < 3; ++row)
          for (int column = 0; column < 3; ++column) {
            const int from_y = 2 * y + row - 1, from_x = 2 * x + column - 1;
            float* const to = &hidden_.values[((std::size_t{1} * y * width + x) * 9 + 3 * row + column) * channels_];
            if (from_y < 0 || from_y >= height_ || from_x < 0 || from_x >= width_) {
              std::fill_n(to, channels_, 0.0f);
            } else {
              std::copy_n(&image[(std::size_t{1} * from_y * width_ + from_x) * channels_], channels_, to);
            }
          }
    pointwise(first_, hidden_, x_, threads, Activation::gelu);
    second_.run(x_, other_, threads);
    kernels().activate(Activation::gelu, other_.values.data(), other_.values.size());
    pointwise(third_, other_, x_, threads, Activation::gelu);
  }

  void apply(Stage& stage, Block& block, Threads& threads) {
    if (block.mixer.empty()) {
      pointwise(block.qkv_and_proj[0], x_, hidden_, threads, Activation::none);
      other_.resize(x_.height, x_.width, x_.channels);
      stage.attention[0].run(hidden_.values.data(), x_.positions(), x_.positions(), other_.values.data(), threads);
      pointwise(block.qkv_and_proj[1], other_, x_, threads, Activation::none, true);
    } else {
      block.mixer[0].run(x_, other_, threads);
      std::swap(x_, other_);
    }
    block.conv.run(x_, other_, threads);
    pointwise(block.fc1, other_, hidden_, threads, Activation::gelu);
    pointwise(block.fc2, hidden_, x_, threads, Activation::none, true);
  }

  static std::vector<float> means(const Map& map) {
    std::vector<double> totals(map.channels);
    for (int i = 0; i < map.positions(); ++i)
      for (int c = 0; c < map.channels; ++c) totals[c] += map.values[std::size_t{1} * i * map.channels + c];
    std::vector<float> result(map.channels);
    for (int c = 0; c < map.channels; ++c) result[c] = static_cast<float>(totals[c] / map.positions());
    return result;
  }

  std::vector<float> classified(Threads& threads) {
    std::vector<float> squeezed(gate_[0].outputs()), gate(gate_[1].outputs()), logits(head_[0].outputs());
    gate_[0].run(means(other_).data(), 1, squeezed.data(), threads, Activation::relu);
    gate_[1].run(squeezed.data(), 1, gate.data(), threads, Activation::sigmoid);
    for (std::size_t i = 0; i < other_.values.size(); ++i) other_.values[i] *= gate[i % gate.size()];
    kernels().activate(Activation::gelu, other_.values.data(), other_.values.size());
    head_[0].run(means(other_).data(), 1, logits.data(), threads);
    return logits;
  }

  int height_, width_, channels_, dim_;
  Linear first_;
  DepthwiseConv second_;
  Linear third_;
  std::vector<Stage> stages_;
  std::vector<DepthwiseConv> final_;
  std::vector<Linear> gate_, head_;
  Map x_, other_, hidden_;
};

}  // namespace

std::unique_ptr<Model> open_fastvit(const Network& network) { return std::make_unique<FastVit>(network); }

}  // namespace vitcli::native
