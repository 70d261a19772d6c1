// Which back end and which assembler: the caller's choice, or the best of what is here.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "compiler/backend/toolchain.h"
#include "runtime/environment.h"
#include "runtime/toolchain/search.h"

namespace sagejit {

enum class BackendChoice : uint8_t { kAuto, kCuda, kPtx, kLlvm };
inline constexpr std::array<std::string_view, 4> kBackendNames = {"auto", "cuda", "ptx", "llvm"};

enum class AssemblerChoice : uint8_t { kAuto, kNvrtc, kPtxas, kDriver };
inline constexpr std::array<std::string_view, 4> kAssemblerNames = {"auto", "nvrtc", "ptxas",
                                                                    "driver"};

// "" is auto. Throws Error{kArgument} with the names there are; `option` is what the caller calls
// it.
BackendChoice backend_named(std::string_view name, std::string_view option);
AssemblerChoice assembler_named(std::string_view name, std::string_view option);

// What a caller may ask for.
struct ToolchainChoice {
  BackendChoice backend = BackendChoice::kAuto;
  AssemblerChoice assembler = AssemblerChoice::kAuto;  // where machine code is made
  std::string nvrtc = {};                              // where they are; "": search for them
  std::string ptxas = {};
};

struct ToolchainOptions {
  BackendChoice backend = BackendChoice::kAuto;
  AssemblerChoice assembler = AssemblerChoice::kAuto;
  SearchOptions search = {};
  std::string temporary_dir = "/tmp";

  static ToolchainOptions from(const Environment& environment, const ToolchainChoice& choice = {});
};

// A Toolchain that is searched for and loaded when it is first needed. Thread-safe.
//
// auto: the back end is ptx, which needs nothing and hands the assembler its input soonest. The
// assembler is, of those that are here, ptxas, which is fastest; NVRTC, which besides must load
// itself and a front end; the driver's, which is as old as the driver. One that is too
// old for some kernels of the target gives way to the next that is not; if all are, the newest is
// taken. With the cuda back end it is NVRTC, which does both in one go.
class LazyToolchain {
 public:
  explicit LazyToolchain(ToolchainOptions options) : options_(std::move(options)) {}

  // For machine code of a target, null: whichever, or for PTX alone, which needs no assembler.
  // Throws Error{kToolchain} that names every place where the tools were looked for, and what
  // installs them; then the next call searches again.
  const Toolchain& get(bool assemble, const Target* target = nullptr);
  // Null if what it takes is not here.
  const Toolchain* get_if_any(bool assemble, const Target* target = nullptr);
  // Whether get() makes do with the driver's assembler, which no one asked for and every machine
  // with a GPU has: what a better one has made is then to be preferred. Throws as get().
  bool is_last_resort(bool assemble, const Target* target = nullptr);

 private:
  struct Made {
    std::unique_ptr<Toolchain> toolchain;
    bool is_last_resort = false;
  };
  struct FoundAssembler {
    std::shared_ptr<const Assembler> assembler;  // null where none is wanted
    bool is_last_resort = false;
  };
  // The mutex is held in all of them but made().
  const std::shared_ptr<const Assembler>& opened(AssemblerChoice choice);
  FoundAssembler find_assembler(const Target* target);
  Made make(bool assemble, const Target* target);
  const Made& made(bool assemble, const Target* target);

  const ToolchainOptions options_;
  std::mutex mutex_;
  std::map<std::pair<bool, const Target*>, Made> made_;  // by `assemble` and target
  std::array<std::shared_ptr<const Assembler>, kAssemblerNames.size()> assemblers_;  // by choice
};

}  // namespace sagejit
