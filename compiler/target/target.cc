#include "compiler/target/target.h"

#include <fmt/ranges.h>

#include <vector>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

constexpr Target kTargets[] = {
#define TARGET(name, sm, block, per_sm, regs, threads, s4, fp8, wgmma, fp4, ptx) \
  {name, sm, block, per_sm, regs, threads, s4, fp8, wgmma, fp4, ptx},
#include "compiler/target/targets.def"
#undef TARGET
};

}  // namespace

std::span<const Target> all_targets() {
  return kTargets;
}

const Target& find_target(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Target& target : kTargets) {
    if (target.name == name) return target;
    names.push_back(target.name);
  }
  fail(ErrorKind::kUnsupported, "target '{}' is not known; known targets: {}", name,
       fmt::join(names, ", "));
}

const Target& target_for_device(int major, int minor) {
  const int sm = major * 10 + minor;
  const Target* best = nullptr;
  for (const Target& target : kTargets) {
    // Within one major version a lower minor's code runs on a higher one; architecture-specific
    // code
    // ("a") only on exactly its own.
    const bool specific = target.name.back() == 'a';
    const bool fits = specific ? target.sm == sm : target.sm / 10 == major && target.sm <= sm;
    if (fits && (!best || target.sm >= best->sm)) best = &target;
  }
  if (!best) {
    fail(ErrorKind::kUnsupported,
         "a device of compute capability {}.{} is not supported: kernels need the tensor-core "
         "instructions of 8.0 (Ampere) and an entry in the target table",
         major, minor);
  }
  return *best;
}

}  // namespace sagejit
