// Kernel IR, compiled and run on the emulator.
#pragma once

#include <span>

#include "compiler/backend/cuda/nvrtc.h"
#include "compiler/backend/cuda/print_cuda.h"
#include "compiler/target/target.h"
#include "tests/unit/backend/find_nvrtc.h"
#include "tests/unit/emulator/emulate.h"

namespace sagejit::test {

using emulator::MemoryRange;
using emulator::Report;
using emulator::test::Params;
using emulator::test::range;

class IrProgram {
 public:
  IrProgram(const ir::Function& function, const Nvrtc& nvrtc)
      : threads_(static_cast<uint32_t>(function.block_threads)),
        smem_bytes_(static_cast<uint32_t>(function.smem_bytes())),
        ptx_(nvrtc.compile(print_cuda(function), find_target("sm_80"), false).ptx) {}

  // One block. Warps take turns in an order that `seed` chooses.
  Report run(const Params& params, std::span<const MemoryRange> memory, uint64_t seed = 0) const {
    emulator::Options options;
    options.seed = seed;
    return emulator::test::run_text(ptx_, {1, threads_, smem_bytes_}, params, memory, options);
  }

 private:
  uint32_t threads_, smem_bytes_;
  std::string ptx_;
};

}  // namespace sagejit::test
