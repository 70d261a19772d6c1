// The environment variables that sagejit reads, as they were when a context was made.
//
//   SAGEJIT_CACHE_DIR     directory of the kernel cache
//   XDG_CACHE_HOME, HOME  its parents otherwise: $XDG_CACHE_HOME/sagejit, else $HOME/.cache/sagejit
//   SAGEJIT_NVRTC         the NVRTC library to use
//   SAGEJIT_PTXAS         the ptxas to use
//   SAGEJIT_LLVM          the libsagejit_llvm.so to use
//   CUDA_HOME, CUDA_PATH  CUDA toolkits to look for NVRTC and ptxas in
//   PATH                  folders to look for ptxas in
//   TMPDIR                where files for ptxas are written; else /tmp
#pragma once

#include <string>

namespace sagejit {

// Unset and empty variables are "".
struct Environment {
  std::string cache_dir = {};
  std::string xdg_cache_home = {};
  std::string home = {};
  std::string nvrtc = {};
  std::string ptxas = {};
  std::string llvm = {};
  std::string cuda_home = {};
  std::string cuda_path = {};
  std::string path = {};
  std::string tmpdir = {};

  static Environment read();
};

}  // namespace sagejit
