#include "compiler/backend/common/ptx_version.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "compiler/support/error.h"

namespace sagejit {
namespace {

using ir::Op;

struct CudaRelease {
  int major, minor, ptx_version;
};

// PTX ISA, "Release Notes", table "PTX Release History".
constexpr CudaRelease kReleases[] = {{12, 0, 80}, {12, 1, 81}, {12, 2, 82}, {12, 3, 83},
                                     {12, 4, 84}, {12, 5, 85}, {12, 6, 85}, {12, 7, 86},
                                     {12, 8, 87}, {12, 9, 88}, {13, 0, 90}, {13, 1, 91}};

bool is_fp8_product(Op op) {
  const ir::MmaInfo* mma = ir::find_mma(op);
  return mma && is_fp8(mma->a);
}

// Of the instruction on that target.
int ptx_version_of(Op op, const Target& target) {
  // Newer targets had it first (PTX ISA, "PTX ISA Notes" of cvt).
  if ((op == Op::kPackE4M3 || op == Op::kPackE5M2) && target.sm == 89) return 81;
  return ir::info(op).ptx_version;
}

int ptx_version_of(const ir::Block& block, const Target& target) {
  int version = 0;
  for (const ir::Inst& inst : block) {
    version = std::max({version, ptx_version_of(inst.op, target), ptx_version_of(inst.body, target),
                        ptx_version_of(inst.orelse, target)});
  }
  return version;
}

bool has(const Target& target, Op op) {
  if (ir::find_wgmma(op)) return target.wgmma;
  const bool is_of_fp4 = op == Op::kMmaE2M1 || op == Op::kPackE2M1;
  return target.sm >= ir::info(op).min_sm && (target.native_fp8_mma || !is_fp8_product(op)) &&
         (target.fp4_mma || !is_of_fp4);
}

std::string text_of(int ptx_version) {
  const auto* release = std::find_if(
      std::begin(kReleases), std::end(kReleases),
      [&](const CudaRelease& candidate) { return candidate.ptx_version >= ptx_version; });
  const std::string cuda = release == std::end(kReleases)
                               ? "a newer CUDA"
                               : fmt::format("CUDA {}.{}", release->major, release->minor);
  return fmt::format("PTX {}.{} ({})", ptx_version / 10, ptx_version % 10, cuda);
}

}  // namespace

int ptx_version_for(const ir::Function& kernel, const Target& target) {
  return std::max(target.ptx_version, ptx_version_of(kernel.body, target));
}

int ptx_version_for_any_kernel(const Target& target) {
  int version = target.ptx_version;
  for (int i = 0; i < static_cast<int>(Op::kCount); ++i) {
    const Op op = static_cast<Op>(i);
    if (has(target, op)) version = std::max(version, ptx_version_of(op, target));
  }
  return version;
}

int ptx_version_of_cuda(int major, int minor) {
  int version = 0;
  for (const CudaRelease& release : kReleases) {
    const bool is_reached =
        major > release.major || (major == release.major && minor >= release.minor);
    if (is_reached) version = release.ptx_version;
  }
  return version;
}

std::string kernels_beyond(int ptx_version, const Target& target) {
  if (ptx_version < target.ptx_version) {
    return fmt::format("{} takes {}", target.name, text_of(target.ptx_version));
  }
  const int any = ptx_version_for_any_kernel(target);
  if (ptx_version >= any) return "";
  return fmt::format("some kernels for {} take {}", target.name, text_of(any));
}

std::string kernels_beyond(int ptx_version) {
  std::vector<std::string> parts;
  for (const Target& target : all_targets()) {
    if (std::string part = kernels_beyond(ptx_version, target); !part.empty()) {
      parts.push_back(std::move(part));
    }
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace sagejit
