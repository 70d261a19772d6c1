#include "compiler/backend/cuda/nvrtc.h"

#include <dlfcn.h>

#include <cstddef>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

using Program = void*;

}  // namespace

// The part of NVRTC's C interface that is used. Every function returns 0 on success.
struct Nvrtc::Api {
  void* library = nullptr;
  NvrtcVersion version;
  std::string version_text;
  int (*create)(Program*, const char* source, const char* name, int num_headers,
                const char* const* headers, const char* const* include_names) = nullptr;
  int (*compile)(Program, int num_options, const char* const* options) = nullptr;
  int (*destroy)(Program*) = nullptr;
  int (*ptx_size)(Program, size_t*) = nullptr;
  int (*ptx)(Program, char*) = nullptr;
  int (*cubin_size)(Program, size_t*) = nullptr;
  int (*cubin)(Program, char*) = nullptr;
  int (*log_size)(Program, size_t*) = nullptr;
  int (*log)(Program, char*) = nullptr;
  int (*query_version)(int* major, int* minor) = nullptr;
  const char* (*error_string)(int) = nullptr;

  ~Api() {
    if (library) dlclose(library);
  }

  void check(int result, std::string_view what) const {
    if (result != 0) fail(ErrorKind::kToolchain, "NVRTC: {}: {}", what, error_string(result));
  }

  // Reads one of NVRTC's size-then-contents outputs.
  template <typename Bytes>
  Bytes fetch(int (*size)(Program, size_t*), int (*contents)(Program, char*),
              Program program) const {
    size_t bytes = 0;
    check(size(program, &bytes), "size of an output");
    Bytes result(bytes, {});
    if (bytes) check(contents(program, reinterpret_cast<char*>(result.data())), "an output");
    return result;
  }
};

namespace {

// Owns one nvrtcProgram.
template <typename Api>
struct ProgramGuard {
  const Api& api;
  Program program = nullptr;
  ~ProgramGuard() {
    if (program) api.destroy(&program);
  }
};

std::string without_terminator(std::string text) {
  while (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

}  // namespace

std::vector<std::string> nvrtc_flags(NvrtcVersion version, const Target& target, bool assemble) {
  // --fmad=false: every fused multiply-add is an explicit operation of the IR. 177: a variable that
  // nothing reads; generated code has many, and they would bury an error.
  std::vector<std::string> result = {"--std=c++17", "--minimal", "--fmad=false",
                                     "--diag-suppress=177"};
  // Where there is a driver, NVRTC from 12.9 on keeps a cache of its own. What comes from there has
  // no assembler's report, without which a kernel cannot be judged; our cache keeps the report.
  constexpr NvrtcVersion kFirstWithCache = {12, 9};
  if (version >= kFirstWithCache) result.push_back("--no-cache");
  if (assemble) {
    result.push_back(fmt::format("--gpu-architecture={}", target.name));
    result.push_back("--ptxas-options=-v");
  } else {
    std::string virtual_arch(target.name);
    result.push_back("--gpu-architecture=compute" + virtual_arch.substr(virtual_arch.find('_')));
  }
  return result;
}

Nvrtc::Nvrtc(std::unique_ptr<Api> api) : api_(std::move(api)) {}
Nvrtc::~Nvrtc() = default;

std::unique_ptr<Nvrtc> Nvrtc::load(const std::string& library) {
  auto api = std::make_unique<Api>();
  api->library = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!api->library) fail(ErrorKind::kToolchain, "NVRTC cannot be loaded: {}", dlerror());
  const auto bind = [&](auto& function, const char* name) {
    function =
        reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(api->library, name));
    if (!function)
      fail(ErrorKind::kToolchain, "{} has no function {}: it is not NVRTC 12 or newer", library,
           name);
  };
  bind(api->create, "nvrtcCreateProgram");
  bind(api->compile, "nvrtcCompileProgram");
  bind(api->destroy, "nvrtcDestroyProgram");
  bind(api->ptx_size, "nvrtcGetPTXSize");
  bind(api->ptx, "nvrtcGetPTX");
  bind(api->cubin_size, "nvrtcGetCUBINSize");
  bind(api->cubin, "nvrtcGetCUBIN");
  bind(api->log_size, "nvrtcGetProgramLogSize");
  bind(api->log, "nvrtcGetProgramLog");
  bind(api->query_version, "nvrtcVersion");
  bind(api->error_string, "nvrtcGetErrorString");
  NvrtcVersion& version = api->version;
  api->check(api->query_version(&version.major, &version.minor), "version");
  api->version_text = fmt::format("nvrtc {}.{}", version.major, version.minor);
  return std::unique_ptr<Nvrtc>(new Nvrtc(std::move(api)));
}

const std::string& Nvrtc::version() const {
  return api_->version_text;
}

NvrtcVersion Nvrtc::release() const {
  return api_->version;
}

std::vector<std::string> Nvrtc::flags(const Target& target, bool assemble) const {
  return nvrtc_flags(api_->version, target, assemble);
}
NvrtcOutput Nvrtc::compile(std::string_view source, const Target& target, bool assemble) const {
  const std::string text(source);
  ProgramGuard<Api> guard{*api_};
  api_->check(api_->create(&guard.program, text.c_str(), "kernel.cu", 0, nullptr, nullptr),
              "creating a program");
  const std::vector<std::string> options = flags(target, assemble);
  std::vector<const char*> pointers;
  for (const std::string& option : options) pointers.push_back(option.c_str());
  const int result =
      api_->compile(guard.program, static_cast<int>(pointers.size()), pointers.data());
  NvrtcOutput output;
  output.log =
      without_terminator(api_->fetch<std::string>(api_->log_size, api_->log, guard.program));
  if (result != 0) {
    throw Error(ErrorKind::kToolchain,
                fmt::format("NVRTC refuses the generated kernel for {}: {}", target.name,
                            api_->error_string(result)),
                output.log);
  }
  output.ptx =
      without_terminator(api_->fetch<std::string>(api_->ptx_size, api_->ptx, guard.program));
  if (assemble) {
    output.cubin = api_->fetch<std::vector<uint8_t>>(api_->cubin_size, api_->cubin, guard.program);
  }
  return output;
}

}  // namespace sagejit
