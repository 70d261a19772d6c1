#include "runtime/environment.h"

#include <cstdlib>

namespace sagejit {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

Environment Environment::read() {
  return {.cache_dir = variable("SAGEJIT_CACHE_DIR"),
          .xdg_cache_home = variable("XDG_CACHE_HOME"),
          .home = variable("HOME"),
          .nvrtc = variable("SAGEJIT_NVRTC"),
          .ptxas = variable("SAGEJIT_PTXAS"),
          .llvm = variable("SAGEJIT_LLVM"),
          .cuda_home = variable("CUDA_HOME"),
          .cuda_path = variable("CUDA_PATH"),
          .path = variable("PATH"),
          .tmpdir = variable("TMPDIR")};
}

}  // namespace sagejit
