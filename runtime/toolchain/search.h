// Finds NVRTC, ptxas, nvdisasm and sagejit's own LLVM plug-in.
//
// Order for NVIDIA's tools: the caller's option, $SAGEJIT_NVRTC or $SAGEJIT_PTXAS (either of
// these is final), the dynamic loader's own places or $PATH, $CUDA_HOME, $CUDA_PATH,
// /usr/local/cuda*, and the private folder that the set-up fills with
//   pip install --no-deps --target .deps/nvrtc nvidia-cuda-nvrtc
//   pip install --no-deps --target .deps/ptxas nvidia-cuda-nvcc
//   pip install --no-deps --target .deps/nvdisasm nvidia-cuda-nvdisasm
// For nvdisasm, which no compilation needs, there is neither option nor variable.
// The plug-in is a part of sagejit: $SAGEJIT_LLVM, which is final, the folder of the library or
// program that this code is in, lib beside that folder, the dynamic loader's own places.
#pragma once

#include <string>
#include <vector>

#include "runtime/environment.h"

namespace sagejit {

// One candidate that was tried.
struct SearchPlace {
  std::string origin;   // "SAGEJIT_NVRTC", "dynamic loader", ...
  std::string file;     // a path or a bare library name
  std::string outcome;  // "" if it was taken, else why not
};

struct SearchResult {
  std::vector<SearchPlace> places;  // in order; the last one was taken if `file` is not empty
  std::string file;                 // "" if nothing was found
  std::string version;              // of a program: "13.0.88"; of the plug-in: "llvm 19.1.7"
};

struct SearchOptions {
  std::string nvrtc = {};  // the caller's options; "" for none
  std::string ptxas = {};
  std::string nvrtc_variable = {};  // $SAGEJIT_NVRTC
  std::string ptxas_variable = {};  // $SAGEJIT_PTXAS
  std::string llvm_variable = {};   // $SAGEJIT_LLVM
  std::string cuda_home = {};       // toolkits: DIR/lib64 and DIR/bin
  std::string cuda_path = {};
  std::string path = {};  // $PATH
  // pip targets: DIR/nvidia/cuNN/lib and bin. Passed over if others can write them (why_untrusted()
  // of runtime/cache/private_directory.h).
  std::vector<std::string> private_dirs = {};
  std::vector<std::string> own_dirs = {};    // where sagejit's libraries lie
  std::string system_prefix = "/usr/local";  // of toolkits whose name begins with "cuda"

  static SearchOptions from(const Environment& environment);
};

// Tries the places in order. Does not throw; leaves the library that is found loaded in the
// process.
SearchResult search_nvrtc(const SearchOptions& options);

// Asks each candidate for its version. Does not throw.
SearchResult search_ptxas(const SearchOptions& options);
SearchResult search_nvdisasm(const SearchOptions& options);

// Loads each candidate, and leaves the one that is taken loaded. Does not throw.
SearchResult search_llvm(const SearchOptions& options);

// What to tell a user who lacks them: every place and the command that installs it.
std::string nvrtc_failure(const SearchResult& search);
std::string ptxas_failure(const SearchResult& search);
std::string nvdisasm_failure(const SearchResult& search);
std::string llvm_failure(const SearchResult& search);

}  // namespace sagejit
