// Branches, exits, block barriers.
#include "runtime/device/emulator/semantics/control.h"

#include <fmt/format.h>

#include "runtime/device/emulator/machine/block.h"
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

// Lanes `lanes` of the running group go to `target`; the rest of it stays where it is.
void jump(Warp& w, uint32_t lanes, uint32_t target) {
  Group& g = w.groups[w.running];
  if (lanes == g.mask) {
    g.pc = target;
    return;
  }
  g.mask &= ~lanes;
  w.groups.push_back({target, lanes, -1});
}

void exec_bra(Warp& w, const Instr& in) {
  jump(w, w.mask, in.target);
}

void exec_brx(Warp& w, const Instr& in) {
  w.require_sources(in);
  const auto& table = w.block->kernel.branch_tables[in.target];
  const uint32_t* index = w.src<uint32_t>(in.op[0]);
  for (uint32_t rest = w.mask; rest != 0;) {
    const auto first = static_cast<unsigned>(std::countr_zero(rest));
    if (index[first] >= table.size()) {
      w.fail(ErrorKind::kOutOfBounds, first,
             fmt::format("branch index {} of a table of {} labels", index[first], table.size()));
    }
    uint32_t same = 0;
    for_lanes(rest,
              [&](unsigned l) { same |= static_cast<uint32_t>(index[l] == index[first]) << l; });
    jump(w, same, table[index[first]]);
    rest &= ~same;
  }
}

void exec_exit(Warp& w, const Instr&) {
  w.block->exit_lanes(w, w.mask);
}

void exec_trap(Warp& w, const Instr&) {
  w.fail(ErrorKind::kTrap, w.first_lane(), "the kernel trapped");
}

enum BarrierFlags : uint32_t {
  kWaits = 1,
  kAligned = 2,
  kReduce = 4,
  kPopc = 0,
  kAnd = 8,
  kOr = 16
};

uint32_t uniform(Warp& w, const Operand& op) {
  const uint32_t* s = w.src<uint32_t>(op);
  const uint32_t value = s[w.first_lane()];
  for_lanes(w.mask, [&](unsigned l) {
    if (s[l] != value) {
      w.fail(ErrorKind::kDivergentCollective, l,
             fmt::format("lanes of a warp name barriers or counts {} and {} in one instruction",
                         value, s[l]));
    }
  });
  return value;
}

void require_aligned(Warp& w) {
  const uint32_t missing = w.exists & ~w.exited & ~w.mask;
  if (missing == 0) return;
  w.fail(ErrorKind::kDivergentCollective, static_cast<unsigned>(std::countr_zero(missing)),
         fmt::format("an aligned barrier must be executed by the whole warp together; lanes "
                     "{:#010x} are missing",
                     missing));
}

// bar.red: contributes this warp's lanes. The result is handed out when the barrier completes.
void contribute(Warp& w, uint32_t id, uint32_t votes) {
  Barrier& b = w.block->barriers[id];
  b.reduces = true;
  b.popc += static_cast<uint32_t>(std::popcount(votes & w.mask));
  b.all &= (votes & w.mask) == w.mask ? 1u : 0u;
  b.any |= (votes & w.mask) != 0 ? 1u : 0u;
}

void exec_barrier(Warp& w, const Instr& in) {
  w.require_sources(in);
  if ((in.aux & kAligned) != 0) require_aligned(w);
  const bool reduce = (in.aux & kReduce) != 0;
  const unsigned first = in.num_dst;
  const unsigned counts = in.num_ops - first - (reduce ? 1u : 0u);  // id, or id and thread count
  const uint32_t id = uniform(w, in.op[first]);
  const uint32_t expected = counts > 1 ? uniform(w, in.op[first + 1]) : 0;
  if (id >= kNumBarriers) {
    w.fail(ErrorKind::kOutOfBounds, w.first_lane(),
           fmt::format("barrier {} of {}", id, kNumBarriers));
  }
  if (reduce) contribute(w, id, w.predicate(in.op[in.num_ops - 1u]));
  w.block->arrive(w, id, expected, (in.aux & kWaits) != 0);
}

template <uint32_t kFlags>
void bind_barrier(const Match& m, Instr& in) {
  // bar.* is aligned by definition; barrier.* only when it says so.
  const bool aligned = m.has("aligned") || (kFlags & kAligned) != 0;
  in.aux = kFlags | (aligned ? kAligned : 0u);
  if (m.has("and")) in.aux |= kAnd;
  if (m.has("or")) in.aux |= kOr;
  in.control = Control::kSync;
  in.exec = exec_barrier;
}

template <Control kControl, ExecFn kExec>
void bind_control(const Match&, Instr& in) {
  in.control = kControl;
  in.exec = kExec;
}

constexpr Row kRows[] = {
    {"bra.uni?", "l", bind_control<Control::kBranch, exec_bra>},
    {"brx.idx.uni?", "s:u32 t", bind_control<Control::kIndirect, exec_brx>},
    {"ret.uni?", "", bind_control<Control::kExit, exec_exit>},
    {"exit", "", bind_control<Control::kExit, exec_exit>},
    {"trap", "", bind_control<Control::kExit, exec_trap>},
    {"bar.cta?.sync", "s:u32 s:u32?", bind_barrier<kWaits | kAligned>},
    {"bar.cta?.arrive", "s:u32 s:u32", bind_barrier<kAligned>},
    {"bar.cta?.red.popc.u32", "d:u32 s:u32 s:pred", bind_barrier<kWaits | kAligned | kReduce>},
    {"bar.cta?.red.and|or.pred", "d:pred s:u32 s:pred", bind_barrier<kWaits | kAligned | kReduce>},
    {"barrier.cta?.sync.aligned?", "s:u32 s:u32?", bind_barrier<kWaits>},
    {"barrier.cta?.arrive.aligned?", "s:u32 s:u32", bind_barrier<0>},
    {"barrier.cta?.red.popc.aligned?.u32", "d:u32 s:u32 s:pred", bind_barrier<kWaits | kReduce>},
    {"barrier.cta?.red.and|or.aligned?.pred", "d:pred s:u32 s:pred",
     bind_barrier<kWaits | kReduce>},
};

}  // namespace

void finish_reduction(Warp& w, const Group& g, const Barrier& b) {
  const Instr& in = w.block->kernel.code[g.pc - 1];
  const uint32_t saved = w.mask;
  w.mask = g.mask;
  if ((in.aux & kAnd) != 0) {
    w.set_predicate(in.op[0], b.all != 0 ? kAllLanes : 0);
  } else if ((in.aux & kOr) != 0) {
    w.set_predicate(in.op[0], b.any != 0 ? kAllLanes : 0);
  } else {
    uint32_t* d = w.dst<uint32_t>(in.op[0]);
    for_lanes(w.mask, [&](unsigned l) { d[l] = b.popc; });
    w.defined[in.op[0].defined] |= w.mask;
  }
  w.mask = saved;
}

std::span<const Row> control_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
