#include "artifact.hpp"

#include <fstream>
#include <iterator>

#include "errors.hpp"
#include "json.hpp"
#include "sha256.hpp"

namespace vitcli {
namespace {

namespace fs = std::filesystem;

const char* const MANIFEST = "MANIFEST.json";

std::ifstream open(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!fs::is_regular_file(path) || !file) {
    throw BadUse("cannot read " + path.string(), "an artifact is the directory that `vitcli export` writes");
  }
  return file;
}

Json read_json(const fs::path& path) {
  std::ifstream file = open(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  try {
    return Json::parse(text);
  } catch (const JsonError& error) {
    throw BadUse(path.string() + " is damaged: " + error.what());
  }
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

void verify_file(const fs::path& path, const Json& noted) {
  const std::string again = "export the model again, or copy all of its directory again";
  open(path);
  const auto size = static_cast<double>(fs::file_size(path));
  if (size != noted.at("size").number()) {
    throw BadUse(path.string() + " has another size than " + MANIFEST + " says", again);
  }
  if (sha256_of(path) != noted.at("sha256").string()) {
    throw BadUse(path.string() + " was changed: its SHA-256 is not the one in " + MANIFEST, again);
  }
}

// Every file that the manifest names is as it was written, and it names the files that are read here.
void verify(const fs::path& directory, const Json& manifest) {
  const Json::Object& files = manifest.at("files").object();
  for (const auto& [name, noted] : files) {
    if (fs::path(name).filename() != name) throw JsonError("'" + name + "' is no name of a file");
    verify_file(directory / name, noted);
  }
  for (const char* const name : {"artifact.json", "labels.txt"}) {
    if (files.count(name) == 0) throw JsonError(std::string("it does not name ") + name);
  }
}

std::vector<std::string> read_labels(const fs::path& path) {
  std::ifstream file = open(path);
  std::vector<std::string> labels;
  for (std::string line; std::getline(file, line);) labels.push_back(line);
  return labels;
}

// As many as there are channels; a single one serves all.
std::vector<float> read_per_channel(const Json& list, std::size_t channels) {
  std::vector<float> floats;
  for (const Json& item : list.array()) floats.push_back(static_cast<float>(item.number()));
  if (floats.size() == 1) floats.resize(channels, floats[0]);
  if (floats.size() != channels) throw JsonError("mean or std does not fit in_channels");
  return floats;
}

template <typename T>
T choose(const std::string& word, const std::map<std::string, T>& choices) {
  const auto found = choices.find(word);
  if (found == choices.end()) throw JsonError("\"" + word + "\" is unknown to this program");
  return found->second;
}

Preprocessing read_preprocessing(const Json& json) {
  Preprocessing result;
  result.image_resize = json.at("image_resize").integer();
  result.crop_pct = json.at("crop_pct").number();
  // "random" draws from two filters in training, and evaluates with the second
  result.filter = choose<Filter>(json.at("interpolation").string(), {{"nearest", Filter::nearest},
                                                                     {"bilinear", Filter::bilinear},
                                                                     {"bicubic", Filter::bicubic},
                                                                     {"lanczos", Filter::lanczos},
                                                                     {"random", Filter::bicubic}});
  result.in_channels = json.at("in_channels").integer();
  if (result.in_channels != 1 && result.in_channels != 3) throw JsonError("in_channels is not 1 or 3");
  result.mean = read_per_channel(json.at("mean"), result.in_channels);
  result.std = read_per_channel(json.at("std"), result.in_channels);
  // the ranges of a recipe
  if (result.image_resize < 8 || result.image_resize > 8192) throw JsonError("image_resize is not 8 to 8192");
  if (!(result.crop_pct >= 0.1 && result.crop_pct <= 1)) throw JsonError("crop_pct is not 0.1 to 1");
  return result;
}

}  // namespace

Artifact load_artifact(const fs::path& directory) {
  const fs::path page = directory / "artifact.json";
  open(page);
  const Json manifest = read_json(directory / MANIFEST);
  try {
    verify(directory, manifest);
  } catch (const JsonError& error) {
    throw BadUse((directory / MANIFEST).string() + ": " + error.what());
  }
  const Json json = read_json(page);
  try {
    const std::string file = json.at("file").string();
    if (manifest.at("files").object().count(file) == 0) throw JsonError("'" + file + "' is not in " + MANIFEST);
    const Json& input = json.at("input");
    Artifact artifact;
    artifact.format = json.at("format").string();
    artifact.precision = json.at("precision").string();
    artifact.device = json.at("device").string();
    artifact.file = directory / file;
    artifact.dtype = choose<Dtype>(input.at("dtype").string(), {{"uint8", Dtype::uint8}, {"float32", Dtype::float32}});
    artifact.layout = choose<Layout>(input.at("layout").string(), {{"NHWC", Layout::nhwc}, {"NCHW", Layout::nchw}});
    artifact.batch = input.at("batch").is_null() ? 1 : input.at("batch").integer();
    if (artifact.batch < 1) throw JsonError("batch is not positive");
    artifact.gives_probabilities =
        choose<bool>(json.at("output").string(), {{"probabilities", true}, {"logits", false}});
    artifact.preprocessing = read_preprocessing(json.at("preprocessing"));
    artifact.labels = read_labels(directory / "labels.txt");
    return artifact;
  } catch (const JsonError& error) {
    throw BadUse(page.string() + ": " + error.what());
  }
}

}  // namespace vitcli
