// NVRTC for the tests that need a real compiler: of an installed CUDA toolkit, else of the set-up's
// folder.
#pragma once

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "compiler/backend/cuda/nvrtc.h"
#include "tests/support/catch.h"

namespace sagejit {

// PREFIX/<folder that starts with `start`>/`rest`, those that exist, sorted.
inline std::vector<std::string> libraries_in(const std::filesystem::path& prefix,
                                             const std::string& start, const std::string& rest) {
  std::vector<std::string> found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(prefix, none)) {
    if (!entry.path().filename().string().starts_with(start)) continue;
    if (std::filesystem::exists(entry.path() / rest, none)) found.push_back(entry.path() / rest);
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Null, and a warning in the test's output, where there is none.
inline std::unique_ptr<Nvrtc> find_nvrtc() {
  std::vector<std::string> found = libraries_in("/usr/local", "cuda", "lib64/libnvrtc.so.13");
  const std::filesystem::path private_dir =
      std::filesystem::path(SAGEJIT_ROOT) / ".deps/nvrtc/nvidia";
  for (std::string& path : libraries_in(private_dir, "cu", "lib/libnvrtc.so.13")) {
    found.push_back(std::move(path));
  }
  if (!found.empty()) return Nvrtc::load(found[0]);
  WARN(
      "skipped: libnvrtc.so.13 is neither in /usr/local/cuda*/lib64 nor in .deps/nvrtc; run "
      "tools/setup.sh");
  return nullptr;
}

}  // namespace sagejit
