// pixels ARTIFACT_DIR IMAGE > FILE.ppm: what the network sees of an image. The tests compare it with Python.
#include <cstdio>

#include "artifact.hpp"
#include "errors.hpp"
#include "image.hpp"
#include "preprocess.hpp"

namespace vitcli {
namespace {

int pixels(int argc, char** argv) {
  if (argc != 3) throw BadUse("expected an artifact and an image", "pixels ARTIFACT_DIR IMAGE > FILE.ppm");
  const Artifact artifact = load_artifact(argv[1]);
  const Image seen = network_pixels(read_image(argv[2]), artifact.preprocessing);
  std::printf("P%d\n%d %d\n255\n", seen.channels == 3 ? 6 : 5, seen.width, seen.height);
  std::fwrite(seen.pixels.data(), 1, seen.pixels.size(), stdout);
  return 0;
}

}  // namespace
}  // namespace vitcli

int main(int argc, char** argv) { return vitcli::run_and_report(vitcli::pixels, argc, argv); }
