#include "options.hpp"

#include <algorithm>
#include <cctype>

#include "errors.hpp"

namespace vitcli {
namespace {

const char* const USAGE = "classify ARTIFACT_DIR IMAGE... [--top N] [--device CPU|GPU|cuda] [--threads N]";

int positive_number(const std::string& option, const std::string& word) {
  const bool is_number = !word.empty() && word.size() <= 6 && word.find_first_not_of("0123456789") == word.npos;
  if (!is_number || std::stoi(word) == 0) throw BadUse(option + " takes a positive number, not '" + word + "'", USAGE);
  return std::stoi(word);
}

std::string lower(std::string word) {
  std::transform(word.begin(), word.end(), word.begin(), [](unsigned char letter) { return std::tolower(letter); });
  return word;
}

}  // namespace

Options parse_options(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  std::vector<std::string> paths;
  Options options;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word.rfind("--", 0) != 0) {
      paths.push_back(word);
      continue;
    }
    if (word != "--top" && word != "--device" && word != "--threads") throw BadUse("no option " + word, USAGE);
    if (++i == words.size()) throw BadUse(word + " needs a value", USAGE);
    if (word == "--top") options.most = positive_number(word, words[i]);
    if (word == "--device") options.device = lower(words[i]);
    if (word == "--threads") options.num_threads = positive_number(word, words[i]);
  }
  if (paths.size() < 2) throw BadUse("expected an artifact and an image", USAGE);
  options.artifact = paths[0];
  options.images.assign(paths.begin() + 1, paths.end());
  return options;
}

}  // namespace vitcli
