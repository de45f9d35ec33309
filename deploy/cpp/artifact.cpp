#include "artifact.hpp"

#include <fstream>
#include <iterator>
#include <map>

#include "errors.hpp"
#include "key_values.hpp"
#include "sha256.hpp"

namespace vitcli {
namespace {

namespace fs = std::filesystem;

constexpr int VERSION = 4;         // of artifact.txt
constexpr int MOST_IMAGES = 4096;  // in a batch, whose size is that of memory
const char* const AGAIN = "export the model again, or copy its folder again with all files";

std::ifstream open(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!fs::is_regular_file(path) || !file) {
    throw BadUse("cannot read " + path.string(), "an artifact is the folder that `vitcli export` writes");
  }
  return file;
}

KeyValues read_description(const fs::path& path) {
  std::ifstream file = open(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  KeyValues values = KeyValues::parse(text);
  if (values.integer("artifact_version") != VERSION) {
    throw KeyValueError("it has version " + values.text("artifact_version") + ", and this program reads version " +
                        std::to_string(VERSION));
  }
  return values;
}

std::string sha256_of(const fs::path& path) {
  std::ifstream file = open(path);
  std::vector<char> chunk(1 << 20);
  Sha256 sha256;
  do {
    file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    sha256.update(chunk.data(), static_cast<std::size_t>(file.gcount()));
  } while (file);
  return sha256.hex_digest();
}

// Every file with a digest is as it was written, and those that are read here have one.
void verify_files(const fs::path& directory, const KeyValues& values) {
  const std::map<std::string, std::string> digests = values.with_prefix("sha256.");
  for (const char* const key : {"network", "labels"}) {
    if (digests.count(values.text(key)) == 0) throw KeyValueError("'" + values.text(key) + "' has no SHA-256");
  }
  for (const auto& [name, digest] : digests) {
    if (fs::path(name).filename() != name) throw KeyValueError("'" + name + "' is not the name of a file");
    const fs::path path = directory / name;
    if (sha256_of(path) != digest) throw BadUse(path.string() + " was changed: it has another SHA-256", AGAIN);
  }
}

std::vector<std::string> read_labels(const fs::path& path) {
  std::ifstream file = open(path);
  std::vector<std::string> labels;
  for (std::string line; std::getline(file, line);) labels.push_back(line);
  return labels;
}

std::vector<float> read_per_channel(const KeyValues& values, const std::string& key, int channels) {
  const std::vector<double> numbers = values.numbers(key);
  if (numbers.size() != static_cast<std::size_t>(channels)) throw KeyValueError(key + " does not fit in_channels");
  return {numbers.begin(), numbers.end()};
}

std::optional<Limits> read_range(const KeyValues& values) {
  if (values.text("pixel_range") == "auto") return {};
  const std::vector<double> limits = values.numbers("pixel_range");
  if (limits.size() != 2 || limits[0] >= limits[1]) throw KeyValueError("pixel_range is not a range");
  return Limits{limits[0], limits[1]};
}

template <typename T>
T choose(const KeyValues& values, const std::string& key, const std::map<std::string, T>& choices) {
  const auto found = choices.find(values.text(key));
  if (found == choices.end()) throw KeyValueError(key + " '" + values.text(key) + "' is unknown to this program");
  return found->second;
}

// One number per class if an image has any number of classes; otherwise none.
std::vector<double> read_thresholds(const KeyValues& values, std::size_t num_classes) {
  if (!choose<bool>(values, "activation", {{"softmax", false}, {"sigmoid", true}})) return {};
  const std::vector<double> thresholds = values.numbers("thresholds");
  if (thresholds.size() != num_classes) throw KeyValueError("thresholds does not have one number per class");
  return thresholds;
}

Preprocessing read_preprocessing(const KeyValues& values) {
  Preprocessing result;
  result.height = values.integer("image_height");
  result.width = values.integer("image_width");
  result.crop_mode = choose<CropMode>(
      values, "crop_mode",
      {{"center", CropMode::center}, {"squash", CropMode::squash}, {"border", CropMode::border}});
  result.crop_pct = values.number("crop_pct");
  result.filter = choose<Filter>(values, "interpolation",
                                 {{"nearest", Filter::nearest},
                                  {"bilinear", Filter::bilinear},
                                  {"bicubic", Filter::bicubic},
                                  {"lanczos", Filter::lanczos}});
  const int channels = values.integer("in_channels");
  if (channels < 1) throw KeyValueError("in_channels is not positive");
  result.format = {channels, read_range(values)};
  result.border = read_per_channel(values, "border", channels);
  result.mean = read_per_channel(values, "mean", channels);
  result.std = read_per_channel(values, "std", channels);
  // the ranges of a recipe
  for (const int side : {result.height, result.width}) {
    if (side < 8 || side > 8192) throw KeyValueError("image_height or image_width is not 8 to 8192");
  }
  if (!(result.crop_pct >= 0.1 && result.crop_pct <= 1)) throw KeyValueError("crop_pct is not 0.1 to 1");
  return result;
}

Artifact read_artifact(const fs::path& directory, const KeyValues& values) {
  verify_files(directory, values);
  Artifact artifact;
  artifact.format = values.text("format");
  artifact.precision = values.text("precision");
  artifact.device = values.text("device");
  artifact.file = directory / values.text("network");
  artifact.dtype = choose<Dtype>(values, "input_dtype", {{"uint8", Dtype::uint8}, {"float32", Dtype::float32}});
  artifact.layout = choose<Layout>(values, "input_layout", {{"NHWC", Layout::nhwc}, {"NCHW", Layout::nchw}});
  artifact.batch = values.text("input_batch") == "any" ? 1 : values.integer("input_batch");
  if (artifact.batch < 1 || artifact.batch > MOST_IMAGES) {
    throw KeyValueError("input_batch is not 1 to " + std::to_string(MOST_IMAGES));
  }
  artifact.gives_probabilities = choose<bool>(values, "output", {{"probabilities", true}, {"logits", false}});
  artifact.preprocessing = read_preprocessing(values);
  artifact.labels = read_labels(directory / values.text("labels"));
  artifact.thresholds = read_thresholds(values, artifact.labels.size());
  return artifact;
}

}  // namespace

Artifact load_artifact(const fs::path& directory) {
  const fs::path description = directory / "artifact.txt";
  for (const char* const old : {"artefact.json", "artifact.json"}) {
    if (fs::exists(directory / old) && !fs::exists(description)) {
      throw BadUse(directory.string() + " was exported by an earlier version of vitcli, or lacks artifact.txt",
                   "export it again");
    }
  }
  try {
    return read_artifact(directory, read_description(description));
  } catch (const KeyValueError& error) {
    throw BadUse(description.string() + " is damaged: " + error.what(), AGAIN);
  }
}

}  // namespace vitcli
