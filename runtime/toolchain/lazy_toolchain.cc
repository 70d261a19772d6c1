#include "runtime/toolchain/lazy_toolchain.h"

#include <algorithm>

#include "compiler/backend/assemble/nvrtc_assembler.h"
#include "compiler/backend/common/ptx_version.h"
#include "compiler/backend/cuda/cuda_backend.h"
#include "compiler/backend/llvm/llvm_backend.h"
#include "compiler/backend/ptx/ptx_backend.h"
#include "compiler/support/error.h"
#include "runtime/device/cuda/driver_assembler.h"
#include "runtime/toolchain/ptxas.h"

namespace sagejit {
namespace {

template <typename Choice, size_t kCount>
Choice choice_named(const std::array<std::string_view, kCount>& names, std::string_view name,
                    std::string_view option) {
  if (name.empty()) return Choice::kAuto;
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<Choice>(found - names.begin());
  fail(ErrorKind::kArgument, "{} is '{}': use one of {}", option, name, fmt::join(names, ", "));
}

std::shared_ptr<const Nvrtc> load_nvrtc(const SearchOptions& options) {
  const SearchResult search = search_nvrtc(options);
  if (search.file.empty()) throw Error(ErrorKind::kToolchain, nvrtc_failure(search));
  return Nvrtc::load(search.file);
}

std::shared_ptr<const LlvmPlugin> load_llvm(const SearchOptions& options) {
  const SearchResult search = search_llvm(options);
  if (search.file.empty()) throw Error(ErrorKind::kToolchain, llvm_failure(search));
  return LlvmPlugin::load(search.file);
}

std::shared_ptr<const Assembler> find_ptxas(const ToolchainOptions& options) {
  SearchResult search = search_ptxas(options.search);
  if (search.file.empty()) throw Error(ErrorKind::kToolchain, ptxas_failure(search));
  return make_ptxas_assembler({.program = std::move(search.file),
                               .version = std::move(search.version),
                               .temporary_dir = options.temporary_dir});
}

std::shared_ptr<const Assembler> open_assembler(AssemblerChoice choice,
                                                const ToolchainOptions& options) {
  switch (choice) {
    case AssemblerChoice::kPtxas:
      return find_ptxas(options);
    case AssemblerChoice::kNvrtc:
      return make_nvrtc_assembler(load_nvrtc(options.search));
    case AssemblerChoice::kDriver:
      return make_driver_assembler();
    case AssemblerChoice::kAuto:
      break;
  }
  fail(ErrorKind::kInternal, "auto is no assembler");
}

// Throws Error{kToolchain} if the assembler knows nothing of the target; null is any.
void check_age(const Assembler& assembler, const Target* target) {
  if (!target || assembler.ptx_version() >= target->ptx_version) return;
  fail(ErrorKind::kToolchain, "{} is too old: {}", assembler.name(),
       kernels_beyond(assembler.ptx_version(), *target));
}

}  // namespace

BackendChoice backend_named(std::string_view name, std::string_view option) {
  return choice_named<BackendChoice>(kBackendNames, name, option);
}

AssemblerChoice assembler_named(std::string_view name, std::string_view option) {
  return choice_named<AssemblerChoice>(kAssemblerNames, name, option);
}

ToolchainOptions ToolchainOptions::from(const Environment& environment,
                                        const ToolchainChoice& choice) {
  ToolchainOptions options;
  options.backend = choice.backend;
  options.assembler = choice.assembler;
  options.search = SearchOptions::from(environment);
  options.search.nvrtc = choice.nvrtc;
  options.search.ptxas = choice.ptxas;
  if (!environment.tmpdir.empty()) options.temporary_dir = environment.tmpdir;
  return options;
}

const std::shared_ptr<const Assembler>& LazyToolchain::opened(AssemblerChoice choice) {
  std::shared_ptr<const Assembler>& assembler = assemblers_.at(static_cast<size_t>(choice));
  if (!assembler) assembler = open_assembler(choice, options_);
  return assembler;
}

LazyToolchain::FoundAssembler LazyToolchain::find_assembler(const Target* target) {
  if (options_.assembler != AssemblerChoice::kAuto) {
    FoundAssembler asked_for = {opened(options_.assembler)};
    check_age(*asked_for.assembler, target);
    return asked_for;
  }
  FoundAssembler best;
  std::string reasons;
  for (const AssemblerChoice candidate :
       {AssemblerChoice::kPtxas, AssemblerChoice::kNvrtc, AssemblerChoice::kDriver}) {
    try {
      const auto& assembler = opened(candidate);
      check_age(*assembler, target);
      FoundAssembler found = {assembler, candidate == AssemblerChoice::kDriver};
      if (!target || kernels_beyond(assembler->ptx_version(), *target).empty()) return found;
      const bool is_newer =
          !best.assembler || assembler->ptx_version() > best.assembler->ptx_version();
      if (is_newer) best = found;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kToolchain) throw;
      reasons += "\n" + error.message();
    }
  }
  if (best.assembler) return best;
  throw Error(ErrorKind::kToolchain, "There is no assembler; one of these will do." + reasons);
}

LazyToolchain::Made LazyToolchain::make(bool assemble, const Target* target) {
  if (options_.backend != BackendChoice::kCuda) {
    std::shared_ptr<const Backend> backend = options_.backend == BackendChoice::kLlvm
                                                 ? make_llvm_backend(load_llvm(options_.search))
                                                 : make_ptx_backend();
    FoundAssembler found = assemble ? find_assembler(target) : FoundAssembler{};
    return {make_toolchain(std::move(backend), std::move(found.assembler)), found.is_last_resort};
  }
  std::shared_ptr<const Nvrtc> nvrtc = load_nvrtc(options_.search);
  const bool in_one_go =
      options_.assembler == AssemblerChoice::kAuto || options_.assembler == AssemblerChoice::kNvrtc;
  if (!assemble || in_one_go) return {make_nvrtc_toolchain(std::move(nvrtc))};
  return {make_toolchain(make_cuda_backend(std::move(nvrtc)), find_assembler(target).assembler)};
}

const LazyToolchain::Made& LazyToolchain::made(bool assemble, const Target* target) {
  const std::scoped_lock lock(mutex_);
  Made& made = made_[{assemble, assemble ? target : nullptr}];
  if (!made.toolchain) made = make(assemble, target);
  return made;
}

const Toolchain& LazyToolchain::get(bool assemble, const Target* target) {
  return *made(assemble, target).toolchain;
}

bool LazyToolchain::is_last_resort(bool assemble, const Target* target) {
  return made(assemble, target).is_last_resort;
}

const Toolchain* LazyToolchain::get_if_any(bool assemble, const Target* target) {
  try {
    return &get(assemble, target);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kToolchain) throw;
    return nullptr;
  }
}

}  // namespace sagejit
