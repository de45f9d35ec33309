#include "vit.hpp"

#include <algorithm>
#include <map>

#include "errors.hpp"

namespace vitcli {
namespace {

constexpr std::int64_t LARGEST_PATCH = 1 << 24;

template <typename T>
T choose(const native::Network& network, const std::string& key, const std::map<std::string, T>& choices) {
  const std::string& word = network.text(key);
  const auto found = choices.find(word);
  if (found == choices.end()) throw KeyValueError(key + " '" + word + "' is unknown to this program");
  return found->second;
}

void require_vit(const native::Network& network) {
  const std::string& architecture = network.text("architecture");
  if (architecture == "vit") return;
  throw BadUse("this program runs ViTs, and the network is a " + architecture,
               "run it by the program for CPUs (-DRUNTIME=native), or export it with --to onnx");
}

}  // namespace

Vit::Vit(const native::Network& network, Device& device) : device_(device) {
  require_vit(network);
  read_sizes(network);
  read_weights(network);
}

void Vit::read_sizes(const native::Network& given) {
  grid_ = {1, given.size("grid_rows"), given.size("grid_columns"), given.size("patch_size"), given.size("in_channels")};
  if (grid_.rows * std::int64_t{grid_.patch_size} != given.size("image_height") ||
      grid_.columns * std::int64_t{grid_.patch_size} != given.size("image_width")) {
    throw KeyValueError("the patches do not cover the image");
  }
  if (std::int64_t{grid_.patch_size} * grid_.patch_size * grid_.channels > LARGEST_PATCH ||
      std::int64_t{grid_.rows} * grid_.columns > LARGEST_PATCH) {
    throw KeyValueError("the patches are too large or too many");
  }
  const int prefix = given.size("num_prefix_tokens", 0);
  sizes_ = {1, grid_.rows * grid_.columns + prefix, prefix, given.size("embed_dim")};
  num_heads_ = given.size("num_heads");
  head_dim_ = given.size("head_dim");
  if (head_dim_ > LARGEST_HEAD_DIM) {
    throw KeyValueError("heads of " + std::to_string(head_dim_) + " numbers; at most " +
                        std::to_string(LARGEST_HEAD_DIM) + " are supported");
  }
  mlp_dim_ = given.size("mlp_dim");
  num_classes_ = given.size("num_classes");
  eps_ = given.number("norm_eps");
  norms_pixels_ = given.flag("norm_patch_pixels");
  attends_to_self_ = given.flag("attend_to_self") || sizes_.count == 1;
  norm_is_after_ = given.flag("norm_pooled");
  activation_ = choose<Activation>(given, "mlp_activation",
                                   {{"gelu", Activation::gelu},
                                    {"gelu_tanh", Activation::gelu_tanh},
                                    {"quick_gelu", Activation::quick_gelu},
                                    {"relu", Activation::relu},
                                    {"silu", Activation::silu}});
  pooling_ = choose<Pooling>(
      given, "pool",
      {{"token", Pooling::token}, {"avg", Pooling::avg}, {"max", Pooling::max}, {"avgmax", Pooling::avgmax}});
  num_pooled_ = pooling_ == Pooling::token ? given.size("num_pooled_tokens") : 1;
  if (num_pooled_ > sizes_.count) throw KeyValueError("num_pooled_tokens is more than there are tokens");
}

void Vit::read_weights(const native::Network& given) {
  const int width = sizes_.width, inner = num_heads_ * head_dim_;
  patch_ = read_layer(given, "patch", width, grid_.patch_size * grid_.patch_size * grid_.channels);
  if (given.flag("patch_norm")) patch_norm_ = read_affine(given, "patch_norm");
  if (sizes_.prefix > 0) prefix_ = read_floats(given, "prefix", {sizes_.prefix, width});
  positions_ = read_floats(given, "positions", {sizes_.count - sizes_.prefix, width});
  if (given.flag("norm_pre")) norm_pre_ = read_affine(given, "norm_pre");
  for (int i = 0; i < given.size("depth"); ++i) {
    const std::string name = "blocks." + std::to_string(i);
    blocks_.push_back(
        {read_layer(given, name + ".qkv", 3 * inner, width), read_layer(given, name + ".proj", width, inner),
         read_layer(given, name + ".fc1", mlp_dim_, width), read_layer(given, name + ".fc2", width, mlp_dim_)});
  }
  if (given.flag("norm")) norm_ = read_affine(given, "norm");
  if (given.flag("pre_logits")) {
    pre_logits_dim_ = given.shape("pre_logits.weight")[0];
    pre_logits_ = read_layer(given, "pre_logits", pre_logits_dim_, width);
  }
  heads_.push_back(read_head(given, "head"));
  if (given.flag("distilled")) heads_.push_back(read_head(given, "head_dist"));
  if (static_cast<int>(heads_.size()) > num_pooled_) throw KeyValueError("there are more heads than pooled tokens");
  if (given.flag("fine_tune")) fine_tune_ = read_layer(given, "fine_tune", num_classes_, heads_[0].num_outputs());
}

Vit::Head Vit::read_head(const native::Network& given, const std::string& name) {
  const int inputs = pre_logits_ ? pre_logits_dim_ : sizes_.width;
  const int layers = given.size("head_layers");
  if (layers > 2) throw KeyValueError("head_layers is not 1 or 2");
  const std::string last = layers == 2 ? name + ".fc2" : name;
  const int outputs = given.flag("fine_tune") ? given.shape(last + ".weight")[0] : num_classes_;
  if (layers == 1) return {read_layer(given, name, outputs, inputs), {}};
  const int hidden = given.shape(name + ".fc1.weight")[0];
  return {read_layer(given, name + ".fc1", hidden, inputs), read_layer(given, last, outputs, hidden)};
}

Layer Vit::read_layer(const native::Network& given, const std::string& name, int outputs, int inputs) {
  const native::Matrix weight = given.matrix(name + ".weight", outputs, inputs);
  const bool is_int8 = weight.type == native::Type::int8;
  const std::vector<float> scale = is_int8 ? given.floats(name + ".scale", {outputs}) : std::vector<float>();
  return device_.layer(weight, scale, given.floats(name + ".bias", {outputs}));
}

Affine Vit::read_affine(const native::Network& given, const std::string& name) {
  return {read_floats(given, name + ".weight", {sizes_.width}), read_floats(given, name + ".bias", {sizes_.width})};
}

const float* Vit::read_floats(const native::Network& given, const std::string& name, const std::vector<int>& shape) {
  const std::vector<float> values = given.floats(name, shape);
  float* copy = floats(values.size());
  device_.write(copy, values.data(), values.size() * sizeof(float));
  return copy;
}

std::vector<float> Vit::logits(const std::vector<float>& images, int batch) {
  reserve(batch);
  device_.write(buffers_.images, images.data(), images.size() * sizeof(float));
  grid_.batch = sizes_.batch = batch;
  embed(batch);
  for (const Block& block : blocks_) run_block(block, batch);
  if (norm_ && !norm_is_after_) {
    device_.layer_norm(buffers_.tokens, batch * sizes_.count, sizes_.width, eps_, *norm_, buffers_.tokens);
  }
  std::vector<float> logits = classify(0, heads_[0], batch);
  if (heads_.size() > 1) {
    const std::vector<float> second = classify(1, heads_[1], batch);
    for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = (logits[i] + second[i]) / 2;
  }
  if (!fine_tune_) return logits;
  device_.write(buffers_.pooled, logits.data(), logits.size() * sizeof(float));
  device_.linear(buffers_.pooled, batch, *fine_tune_, buffers_.hidden);
  logits.resize(static_cast<std::size_t>(batch) * num_classes_);
  device_.read(logits.data(), buffers_.hidden, logits.size() * sizeof(float));
  return logits;
}

// Memory for this many images; it is never given back, as programs keep to one batch size.
void Vit::reserve(int batch) {
  if (batch <= reserved_batch_) return;
  const std::size_t rows = std::size_t{1} * batch * sizes_.count;
  const int patch_width = patch_.num_inputs, inner = num_heads_ * head_dim_;
  int head_width = std::max({sizes_.width, pre_logits_dim_, num_classes_});
  for (const Head& head : heads_) head_width = std::max({head_width, head.first.num_outputs, head.num_outputs()});
  buffers_.images = floats(rows * patch_width);
  buffers_.patches = floats(rows * std::max(patch_width, sizes_.width));
  buffers_.tokens = floats(rows * sizes_.width);
  buffers_.normed = floats(rows * std::max({patch_width, sizes_.width, inner}));
  buffers_.wide = floats(rows * std::max(3 * inner, mlp_dim_));
  buffers_.narrow = floats(rows * sizes_.width);
  buffers_.pooled = floats(std::size_t{1} * batch * head_width);
  buffers_.hidden = floats(std::size_t{1} * batch * head_width);
  reserved_batch_ = batch;
}

float* Vit::floats(std::size_t count) { return static_cast<float*>(device_.allocate(count * sizeof(float))); }

void Vit::embed(int batch) {
  const int num_patches = batch * grid_.rows * grid_.columns;
  device_.patches(buffers_.images, grid_, buffers_.patches);
  if (norms_pixels_) {
    device_.layer_norm(buffers_.patches, num_patches, patch_.num_inputs, eps_, {}, buffers_.patches);
  }
  device_.linear(buffers_.patches, num_patches, patch_, buffers_.narrow);
  if (patch_norm_) {
    device_.layer_norm(buffers_.narrow, num_patches, sizes_.width, eps_, *patch_norm_, buffers_.narrow);
  }
  device_.assemble(prefix_, buffers_.narrow, positions_, sizes_, buffers_.tokens);
  if (norm_pre_) {
    device_.layer_norm(buffers_.tokens, batch * sizes_.count, sizes_.width, eps_, *norm_pre_, buffers_.tokens);
  }
}

void Vit::run_block(const Block& block, int batch) {
  const int rows = batch * sizes_.count;
  const std::size_t count = std::size_t{1} * rows * sizes_.width;
  device_.layer_norm(buffers_.tokens, rows, sizes_.width, eps_, {}, buffers_.normed);
  device_.linear(buffers_.normed, rows, block.qkv, buffers_.wide);
  device_.attention(buffers_.wide, sizes_, num_heads_, head_dim_, attends_to_self_, buffers_.normed);
  device_.linear(buffers_.normed, rows, block.proj, buffers_.narrow);
  device_.add(buffers_.tokens, buffers_.narrow, count);
  device_.layer_norm(buffers_.tokens, rows, sizes_.width, eps_, {}, buffers_.normed);
  device_.linear(buffers_.normed, rows, block.fc1, buffers_.wide);
  device_.activate(buffers_.wide, std::size_t{1} * rows * mlp_dim_, activation_);
  device_.linear(buffers_.wide, rows, block.fc2, buffers_.narrow);
  device_.add(buffers_.tokens, buffers_.narrow, count);
}

// What `head` says of each image: of its token of this number, or of all its patches.
std::vector<float> Vit::classify(int token, const Head& head, int batch) {
  float *x = buffers_.pooled, *y = buffers_.hidden;
  const auto layer = [&](const Layer& given) {
    device_.linear(x, batch, given, y);
    std::swap(x, y);
  };
  device_.pool(buffers_.tokens, sizes_, pooling_, token, x);
  if (norm_ && norm_is_after_) device_.layer_norm(x, batch, sizes_.width, eps_, *norm_, x);
  if (pre_logits_) {
    layer(*pre_logits_);
    device_.activate(x, std::size_t{1} * batch * pre_logits_dim_, Activation::tanh);
  }
  layer(head.first);
  if (head.second) {
    device_.activate(x, std::size_t{1} * batch * head.first.num_outputs, Activation::gelu);
    layer(*head.second);
  }
  std::vector<float> result(static_cast<std::size_t>(batch) * head.num_outputs());
  device_.read(result.data(), x, result.size() * sizeof(float));
  return result;
}

}  // namespace vitcli
