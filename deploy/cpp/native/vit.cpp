// The plain vision transformer, in the steps of docs/native.md.
#include <algorithm>
#include <map>

#include "linear.hpp"
#include "model.hpp"

namespace vitcli::native {
namespace {

Activation activation_of(const Network& network) {
  static const std::map<std::string, Activation> names = {{"gelu", Activation::gelu},
                                                          {"gelu_tanh", Activation::gelu_tanh},
                                                          {"quick_gelu", Activation::quick_gelu},
                                                          {"relu", Activation::relu},
                                                          {"silu", Activation::silu}};
  const auto found = names.find(network.text("mlp_activation"));
  if (found == names.end()) throw KeyValueError("mlp_activation is unknown to this program");
  return found->second;
}

struct Sizes {
  int patch, rows, columns, channels, width, height_px, width_px;
  int prefix, heads, head_dim, hidden, classes;
  float eps;

  explicit Sizes(const Network& network)
      : patch(network.size("patch_size")),
        rows(network.size("grid_rows")),
        columns(network.size("grid_columns")),
        channels(network.size("in_channels")),
        width(network.size("embed_dim")),
        height_px(network.size("image_height")),
        width_px(network.size("image_width")),
        prefix(network.size("num_prefix_tokens", 0)),
        heads(network.size("num_heads")),
        head_dim(network.size("head_dim", 1, 4096)),
        hidden(network.size("mlp_dim")),
        classes(network.size("num_classes")),
        eps(network.number("norm_eps")) {
    if (height_px != rows * patch || width_px != columns * patch) throw KeyValueError("patches do not make the image");
    if (std::int64_t{1} * patch * patch * channels > (1 << 28)) throw KeyValueError("patch_size is too large");
  }

  int patches() const { return rows * columns; }
  int tokens() const { return prefix + patches(); }
  int pixels() const { return patch * patch * channels; }
  int inner() const { return heads * head_dim; }
};

// LayerNorm of rows; without weights if it is not in the description.
class Norm {
 public:
  Norm(const Network& network, const std::string& name, int width, float eps)
      : exists_(network.flag(name)), width_(width), eps_(eps) {
    if (!exists_) return;
    weight_ = network.floats(name + ".weight", {width});
    bias_ = network.floats(name + ".bias", {width});
  }

  void run(float* rows, int count) const {
    if (!exists_) return;
    for (int i = 0; i < count; ++i) {
      float* const row = rows + std::size_t{1} * i * width_;
      kernels().layer_norm(row, width_, eps_, weight_.data(), bias_.data(), row);
    }
  }

 private:
  bool exists_;
  int width_;
  float eps_;
  std::vector<float> weight_, bias_;
};

struct Block {
  Block(const Network& network, const std::string& name, const Sizes& sizes)
      : qkv(network, name + ".qkv", 3 * sizes.inner(), sizes.width),
        proj(network, name + ".proj", sizes.width, sizes.inner()),
        fc1(network, name + ".fc1", sizes.hidden, sizes.width),
        fc2(network, name + ".fc2", sizes.width, sizes.hidden) {}

  Linear qkv, proj, fc1, fc2;
};

// From pooled tokens to logits.
class Head {
 public:
  Head(const Network& network, const Sizes& sizes) : is_distilled_(network.flag("distilled")) {
    int width = sizes.width;
    if (network.flag("pre_logits")) {
      width = network.shape("pre_logits.bias").front();
      pre_logits_.emplace_back(network, "pre_logits", width, sizes.width);
    }
    const bool is_stacked = network.flag("fine_tune");
    const bool has_two = network.size("head_layers", 1, 2) == 2;
    const std::string last = has_two ? "head.fc2" : "head";
    const int outputs = is_stacked ? network.shape(last + ".bias").front() : sizes.classes;
    for (const char* const name : {"head", "head_dist"}) {
      if (!is_distilled_ && name != std::string("head")) break;
      std::vector<Linear>& layers = layers_.emplace_back();
      if (has_two) {
        const std::string first = std::string(name) + ".fc1", second = std::string(name) + ".fc2";
        layers.emplace_back(network, first, network.shape(first + ".bias").front(), width);
        layers.emplace_back(network, second, outputs, layers[0].outputs());
      } else {
        layers.emplace_back(network, name, outputs, width);
      }
    }
    if (is_stacked) fine_tune_.emplace_back(network, "fine_tune", sizes.classes, outputs);
  }

  bool is_distilled() const { return is_distilled_; }

  // pooled: one row, or two of a distilled network.
  std::vector<float> run(const std::vector<std::vector<float>>& pooled, Threads& threads) {
    std::vector<float> logits;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      std::vector<float> x = pooled[i];
      if (!pre_logits_.empty()) x = after(pre_logits_[0], x, threads, Activation::tanh);
      for (std::size_t j = 0; j < layers_[i].size(); ++j) {
        x = after(layers_[i][j], x, threads, j + 1 < layers_[i].size() ? Activation::gelu : Activation::none);
      }
      for (std::size_t j = 0; j < logits.size(); ++j) x[j] = (x[j] + logits[j]) / 2;
      logits = x;
    }
    return fine_tune_.empty() ? logits : after(fine_tune_[0], logits, threads, Activation::none);
  }

 private:
  static std::vector<float> after(Linear& layer, const std::vector<float>& x, Threads& threads, Activation activation) {
    std::vector<float> y(layer.outputs());
    layer.run(x.data(), 1, y.data(), threads, activation);
    return y;
  }

  bool is_distilled_;
  std::vector<Linear> pre_logits_, fine_tune_;  // none or one
  std::vector<std::vector<Linear>> layers_;
};

class Vit : public Model {
 public:
  explicit Vit(const Network& network)
      : sizes_(network),
        activation_(activation_of(network)),
        norms_pixels_(network.flag("norm_patch_pixels")),
        patch_(network, "patch", sizes_.width, sizes_.pixels()),
        patch_norm_(network, "patch_norm", sizes_.width, sizes_.eps),
        norm_pre_(network, "norm_pre", sizes_.width, sizes_.eps),
        norm_(network, "norm", sizes_.width, sizes_.eps),
        positions_(network.floats("positions", {sizes_.patches(), sizes_.width})),
        attention_(sizes_.heads, sizes_.head_dim, network.flag("attend_to_self")),
        head_(network, sizes_),
        pool_(network.text("pool")),
        norms_pooled_(network.flag("norm_pooled")) {
    if (sizes_.prefix > 0) prefix_ = network.floats("prefix", {sizes_.prefix, sizes_.width});
    num_pooled_ = pool_ == "token" ? network.size("num_pooled_tokens", 1, sizes_.prefix) : 0;
    if (pool_ != "token" && pool_ != "avg" && pool_ != "max" && pool_ != "avgmax") {
      throw KeyValueError("pool '" + pool_ + "' is unknown to this program");
    }
    if (num_pooled_ < (head_.is_distilled() ? 2 : 0)) throw KeyValueError("distilled needs two pooled tokens");
    const int depth = network.size("depth", 1, 1000);
    for (int i = 0; i < depth; ++i) blocks_.emplace_back(network, "blocks." + std::to_string(i), sizes_);
    const std::size_t tokens = sizes_.tokens();
    x_.resize(tokens * sizes_.width);
    normed_.resize(tokens * std::max(sizes_.width, sizes_.inner()));
    wide_.resize(tokens * std::max(3 * sizes_.inner(), sizes_.hidden));
  }

  std::vector<float> run(const std::vector<float>& image, Threads& threads) override {
    embed(image, threads);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const bool is_last = i + 1 == blocks_.size();
      apply(blocks_[i], is_last && num_pooled_ > 0 ? num_pooled_ : sizes_.tokens(), threads);
    }
    return head_.run(pooled(), threads);
  }

 private:
  void embed(const std::vector<float>& image, Threads& threads) {
    const int line = sizes_.patch * sizes_.channels, pixels = sizes_.pixels();
    patches_.resize(std::size_t{1} * sizes_.patches() * pixels);
    float* to = patches_.data();
    for (int row = 0; row < sizes_.rows; ++row)
      for (int column = 0; column < sizes_.columns; ++column)
        for (int y = 0; y < sizes_.patch; ++y, to += line) {
          const std::size_t pixel = std::size_t{1} * (row * sizes_.patch + y) * sizes_.width_px + column * sizes_.patch;
          std::copy_n(image.data() + pixel * sizes_.channels, line, to);
        }
    for (int i = 0; norms_pixels_ && i < sizes_.patches(); ++i) {
      float* const patch = patches_.data() + std::size_t{1} * i * pixels;
      kernels().layer_norm(patch, pixels, sizes_.eps, nullptr, nullptr, patch);
    }
    std::copy(prefix_.begin(), prefix_.end(), x_.begin());
    float* const tokens = x_.data() + prefix_.size();
    patch_.run(patches_.data(), sizes_.patches(), tokens, threads);
    patch_norm_.run(tokens, sizes_.patches());
    for (std::size_t i = 0; i < positions_.size(); ++i) tokens[i] += positions_[i];
    norm_pre_.run(x_.data(), sizes_.tokens());
  }

  // layer_norm of the first `rows` tokens, into normed_.
  void normalize(int rows, Threads& threads) {
    threads.run((rows + 15) / 16, [&](int part) {
      for (int row = 16 * part; row < std::min(16 * part + 16, rows); ++row) {
        const std::size_t at = std::size_t{1} * row * sizes_.width;
        kernels().layer_norm(x_.data() + at, sizes_.width, sizes_.eps, nullptr, nullptr, normed_.data() + at);
      }
    });
  }

  // Only the first `needed` tokens are computed beyond the keys and values.
  void apply(Block& block, int needed, Threads& threads) {
    normalize(sizes_.tokens(), threads);
    block.qkv.run(normed_.data(), sizes_.tokens(), wide_.data(), threads);
    attention_.run(wide_.data(), sizes_.tokens(), needed, normed_.data(), threads);
    block.proj.run(normed_.data(), needed, x_.data(), threads, Activation::none, true);
    normalize(needed, threads);
    block.fc1.run(normed_.data(), needed, wide_.data(), threads, activation_);
    block.fc2.run(wide_.data(), needed, x_.data(), threads, Activation::none, true);
  }

  std::vector<std::vector<float>> pooled() {
    const int width = sizes_.width;
    if (!norms_pooled_) norm_.run(x_.data(), num_pooled_ > 0 ? num_pooled_ : sizes_.tokens());
    std::vector<std::vector<float>> result;
    if (num_pooled_ > 0) {
      for (int i = 0; i < num_pooled_; ++i) result.emplace_back(x_.begin() + i * width, x_.begin() + (i + 1) * width);
    } else {
      result.push_back(pooled_patches());
    }
    for (std::vector<float>& token : result)
      if (norms_pooled_) norm_.run(token.data(), 1);
    return result;
  }

  std::vector<float> pooled_patches() const {
    const int width = sizes_.width;
    std::vector<float> result(width);
    for (int i = 0; i < width; ++i) {
      double total = 0;
      float most = x_[std::size_t{1} * sizes_.prefix * width + i];
      for (int token = sizes_.prefix; token < sizes_.tokens(); ++token) {
        const float value = x_[std::size_t{1} * token * width + i];
        total += value;
        most = std::max(most, value);
      }
      const float mean = static_cast<float>(total / sizes_.patches());
      result[i] = pool_ == "avg" ? mean : pool_ == "max" ? most : (mean + most) / 2;
    }
    return result;
  }

  Sizes sizes_;
  Activation activation_;
  bool norms_pixels_;
  Linear patch_;
  Norm patch_norm_, norm_pre_, norm_;
  std::vector<float> positions_, prefix_;
  Attention attention_;
  Head head_;
  std::string pool_;
  bool norms_pooled_;
  int num_pooled_ = 0;  // 0: patches are pooled
  std::vector<Block> blocks_;
  std::vector<float> patches_, x_, normed_, wide_;
};

}  // namespace

std::unique_ptr<Model> open_vit(const Network& network) { return std::make_unique<Vit>(network); }

}  // namespace vitcli::native
