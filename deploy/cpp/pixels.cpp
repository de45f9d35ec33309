// pixels ARTIFACT_DIR IMAGE... > FILE.pam: what the network sees of each image, one after the other. The tests compare
// it with Python.
#include <array>
#include <cstdio>

#include "artifact.hpp"
#include "errors.hpp"
#include "image.hpp"
#include "preprocess.hpp"

namespace vitcli {
namespace {

void write(const Image& seen) {
  const auto [width, height, channels] = std::array<int, 3>{seen.width, seen.height, seen.channels};
  std::printf("P7\nWIDTH %d\nHEIGHT %d\nDEPTH %d\nMAXVAL 255\nENDHDR\n", width, height, channels);
  std::fwrite(seen.pixels.data(), 1, seen.pixels.size(), stdout);
}

int pixels(int argc, char** argv) {
  if (argc < 3) throw BadUse("expected an artifact and an image", "pixels ARTIFACT_DIR IMAGE... > FILE.pam");
  const Artifact artifact = load_artifact(argv[1]);
  for (int i = 2; i < argc; ++i) {
    write(network_pixels(read_image(argv[i], artifact.preprocessing.format), artifact.preprocessing));
  }
  return 0;
}

}  // namespace
}  // namespace vitcli

int main(int argc, char** argv) { return vitcli::run_and_report(vitcli::pixels, argc, argv); }
