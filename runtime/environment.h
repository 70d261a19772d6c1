// The environment variables that sagejit reads, as they were when a context was made.
//
//   SAGEJIT_CACHE_DIR     directory of the kernel cache
//   XDG_CACHE_HOME, HOME  its parents otherwise: $XDG_CACHE_HOME/sagejit, else $HOME/.cache/sagejit
//   SAGEJIT_NVRTC         the NVRTC library to use
//   CUDA_HOME, CUDA_PATH  CUDA toolkits to look for NVRTC in
#pragma once

#include <string>

namespace sagejit {

// Unset and empty variables are "".
struct Environment {
  std::string cache_dir = {};
  std::string xdg_cache_home = {};
  std::string home = {};
  std::string nvrtc = {};
  std::string cuda_home = {};
  std::string cuda_path = {};

  static Environment read();
};

}  // namespace sagejit
