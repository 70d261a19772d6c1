#include "runtime/device/emulator/machine/warp.h"

#include <fmt/format.h>

#include "runtime/device/emulator/machine/block.h"

namespace sagejit::emulator {

Index3 Warp::thread_index(uint32_t linear) const {
  const Index3& n = block->launch.block;
  return {linear % n[0], linear / n[0] % n[1], linear / n[0] / n[1]};
}

void Warp::fail(ErrorKind kind, unsigned lane, std::string message,
                std::optional<LastWriter> writer) const {
  ErrorInfo e;
  e.kind = kind;
  e.message = std::move(message);
  e.line = current->line;
  e.text = block->launch.module->line_text(current->line);
  e.kernel = block->kernel.info.name;
  e.block = block->ctaid;
  e.thread = thread_index(thread(lane));
  e.last_writer = writer;
  throw Error(std::move(e));
}

void Warp::fail_undefined(const Instr& in, unsigned first, unsigned end) const {
  for (unsigned i = first; i < end; ++i) {
    const uint32_t missing = mask & ~defined[in.op[i].defined];
    if (missing == 0) continue;
    fail(ErrorKind::kUninitializedRead, static_cast<unsigned>(std::countr_zero(missing)),
         fmt::format("source operand {} is a register that this thread never wrote",
                     i - in.num_dst + 1));
  }
  fail(ErrorKind::kUninitializedRead, first_lane(), "a source register was never written");
}

void Warp::fail_guard(const Instr& in) const {
  const uint32_t missing = groups[running].mask & ~defined[in.guard.defined];
  fail(ErrorKind::kUninitializedRead, static_cast<unsigned>(std::countr_zero(missing)),
       "the guard predicate is a register that this thread never wrote");
}

}  // namespace sagejit::emulator
