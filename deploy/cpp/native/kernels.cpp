#include "kernels.hpp"

#include <cstdlib>
#include <string>
#include <vector>

#include "../errors.hpp"

namespace vitcli::native {
namespace {

// Those that this processor can run, the fastest one last.
std::vector<const Kernels*> available() {
  std::vector<const Kernels*> found = {&EMULATED, &PORTABLE};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&AVX2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni")) {
    found.push_back(&AVX512);
    if (__builtin_cpu_supports("avx512bf16")) found.push_back(&AVX512_BF16);
  }
#endif
  return found;
}

const Kernels& chosen() {
  const std::vector<const Kernels*> found = available();
  const char* const wanted = std::getenv("VITCLI_KERNELS");
  if (!wanted || !*wanted) return *found.back();
  std::string names;
  for (const Kernels* const one : found) {
    if (std::string(wanted) == one->name) return *one;
    names += std::string(names.empty() ? "" : ", ") + one->name;
  }
  throw BadUse("VITCLI_KERNELS is '" + std::string(wanted) + "'", "this processor has " + names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& found = chosen();
  return found;
}

}  // namespace vitcli::native
