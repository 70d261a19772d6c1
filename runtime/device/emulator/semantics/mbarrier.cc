// mbarrier objects and the fences of the async proxy.
//
// Arriving releases what the thread did, a successful wait acquires what all arrivals of the phase
// (and its copies) released. A wait that fails returns false once, so that code that does not look
// at the result is found out; tried again, its lanes are set aside until the phase completes, or
// until nothing else in the block can run. PTX allows all this, and spinning costs no steps.
#include <fmt/format.h>

#include "runtime/device/emulator/semantics/access.h"
#include "runtime/device/emulator/semantics/barrier.h"
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

enum MbarrierFlags : uint32_t {
  kGeneric = 1,
  kExpect = 2,
  kNoComplete = 4,
  kParity = 8,
  kNoInc = 16
};

bool is_shared(const Match& m) {
  return m.has("shared") || m.has("shared::cta") || m.has("shared::cluster");
}

LastWriter initialiser(const Warp& w, const Mbarrier& b) {
  return {w.block->kernel.code[b.init_instr].line, w.thread_index(b.init_thread), true};
}

// Calls fn(mbarrier index, lanes) for the active lanes, those of the same mbarrier together.
template <class Fn>
void each_mbarrier(Warp& w, const Instr& in, const Operand& base, Fn&& fn) {
  const auto at = mbarrier_operands(w, base, in.offset, (in.aux & kGeneric) != 0);
  for (uint32_t rest = w.mask; rest != 0;) {
    const uint32_t index = at[static_cast<unsigned>(std::countr_zero(rest))];
    uint32_t lanes = 0;
    each_lane(rest, [&](unsigned l) { lanes |= static_cast<uint32_t>(at[l] == index) << l; });
    rest &= ~lanes;
    fn(index, lanes);
  }
}

void exec_init(Warp& w, const Instr& in) {
  w.require_sources(in);
  Block& b = *w.block;
  b.note_progress();
  Addresses address;
  compute_addresses(w, in.op[0], in.offset, address);
  const uint32_t* count = w.src<uint32_t>(in.op[1]);
  each_lane(w.mask, [&](unsigned l) {
    const uint32_t offset = barrier_offset(w, l, address[l], (in.aux & kGeneric) != 0);
    if (count[l] == 0 || count[l] > kMaxMbarrierCount) {
      w.fail(ErrorKind::kBarrierMisuse, l,
             fmt::format("an mbarrier for {} arrivals; 1..{} are possible", count[l],
                         kMaxMbarrierCount));
    }
    if (const int old = b.mbarriers.find(offset); old >= 0) {
      w.fail(ErrorKind::kBarrierMisuse, l,
             fmt::format("{} is initialised again without mbarrier.inval",
                         b.describe_mbarrier(static_cast<uint32_t>(old))),
             initialiser(w, b.mbarriers[static_cast<size_t>(old)]));
    }
    const Access access{w.thread(l), in.index, &w.clock, false};
    const Finding f = b.shadow.claim_barrier(offset, kMbarrierBytes, access);
    if (f.hazard != Hazard::kNone) report_hazard(w, l, f, "mbarrier.init");
    const int index = b.mbarriers.create(offset);
    if (index < 0) {
      w.fail(ErrorKind::kUnsupported, l,
             fmt::format("more than {} mbarriers in a block", kMaxMbarriers));
    }
    Mbarrier& m = b.mbarriers[static_cast<size_t>(index)];
    m.expected = m.pending = count[l];
    m.init_thread = w.thread(l);
    m.init_clock = w.clock.now;
    m.init_instr = in.index;
  });
}

void exec_inval(Warp& w, const Instr& in) {
  w.require_sources(in);
  w.block->note_progress();
  each_mbarrier(w, in, in.op[0], [&](uint32_t index, uint32_t lanes) {
    const auto l = static_cast<unsigned>(std::countr_zero(lanes));
    const Access access{w.thread(l), in.index, &w.clock, false};
    w.block->shadow.free_barrier(w.block->mbarriers[index].offset, kMbarrierBytes, access);
    w.block->mbarriers.destroy(index);
  });
}

void expect_bytes(Warp& w, uint32_t index, uint32_t lanes, const uint32_t* bytes, int64_t sign) {
  Mbarrier& b = w.block->mbarriers[index];
  each_lane(lanes, [&](unsigned l) {
    b.tx += sign * bytes[l];
    if (b.tx > kMaxMbarrierCount || b.tx < -int64_t{kMaxMbarrierCount}) {
      w.fail(ErrorKind::kBarrierMisuse, l,
             fmt::format("the transaction count of {} leaves its range of +-{}",
                         w.block->describe_mbarrier(index), kMaxMbarrierCount));
    }
  });
}

uint64_t token_of(uint32_t index, uint32_t phase) {
  return uint64_t{1} << 63 | uint64_t{index} << 32 | phase;
}

// Operands: state, address, then count (or bytes with .expect_tx).
void exec_arrive(Warp& w, const Instr& in) {
  w.require_sources(in);
  Block& b = *w.block;
  b.note_progress();
  const uint32_t* number = in.num_ops > 2 ? w.src<uint32_t>(in.op[2]) : nullptr;
  const bool expect = (in.aux & kExpect) != 0;
  uint64_t state[kWarpLanes] = {};
  each_mbarrier(w, in, in.op[1], [&](uint32_t index, uint32_t lanes) {
    Mbarrier& m = b.mbarriers[index];
    const auto first = static_cast<unsigned>(std::countr_zero(lanes));
    if (expect) expect_bytes(w, index, lanes, number, 1);
    uint64_t arrivals = 0;
    each_lane(lanes, [&](unsigned l) {
      arrivals += expect || number == nullptr ? 1 : number[l];
      state[l] = token_of(index, m.phase);
    });
    const bool completes = arrivals == m.pending && m.tx == 0;
    if (arrivals > m.pending || arrivals == 0 || (completes && (in.aux & kNoComplete) != 0)) {
      w.fail(ErrorKind::kBarrierMisuse, first,
             fmt::format("{} arrivals at {}", arrivals, b.describe_mbarrier(index)));
    }
    w.clock.release(w.index, lanes, w.is_whole(lanes), b.clocks, m.arriving);
    m.pending -= static_cast<uint32_t>(arrivals);
    b.settle_mbarrier(index);
  });
  write_lanes(w, in.op[0], state);
}

void exec_expect(Warp& w, const Instr& in) {
  w.require_sources(in);
  w.block->note_progress();
  const uint32_t* bytes = w.src<uint32_t>(in.op[1]);
  const int64_t sign = (in.aux & kExpect) != 0 ? 1 : -1;
  each_mbarrier(w, in, in.op[0], [&](uint32_t index, uint32_t lanes) {
    expect_bytes(w, index, lanes, bytes, sign);
    if (sign < 0) w.block->settle_mbarrier(index);
  });
}

// Has the phase that a lane names completed?
bool completed(Warp& w, const Instr& in, unsigned lane, const Mbarrier& b, uint32_t index) {
  if ((in.aux & kParity) != 0) {
    const uint32_t parity = w.src<uint32_t>(in.op[2])[lane];
    if (parity > 1) {
      w.fail(ErrorKind::kBarrierMisuse, lane, fmt::format("phase parity {}: 0 or 1", parity));
    }
    return (b.phase & 1) != parity;
  }
  const uint64_t state = w.src<uint64_t>(in.op[2])[lane];
  const auto phase = static_cast<uint32_t>(state);
  if (state != token_of(index, phase) || phase > b.phase || phase + 1 < b.phase) {
    w.fail(ErrorKind::kBarrierMisuse, lane,
           fmt::format("the state is not of the current or the last phase of {}",
                       w.block->describe_mbarrier(index)));
  }
  return phase < b.phase;
}

void exec_wait(Warp& w, const Instr& in) {
  w.require_sources(in);
  Block& b = *w.block;
  Group& group = w.groups[w.running];
  uint32_t ok = 0;
  uint32_t awaited = 0;
  each_mbarrier(w, in, in.op[1], [&](uint32_t index, uint32_t lanes) {
    uint32_t done = 0;
    each_lane(lanes, [&](unsigned l) {
      done |= static_cast<uint32_t>(completed(w, in, l, b.mbarriers[index], index)) << l;
    });
    if (done != lanes) awaited = index;
    ok |= done;
  });
  if (ok == 0 && !group.gives_up && group.failed_at == in.index) {
    return b.suspend(w, kWaitsMbarrier + static_cast<int32_t>(awaited));
  }
  group.gives_up = false;
  group.failed_at = ok == 0 ? in.index : ~0u;
  each_mbarrier(w, in, in.op[1], [&](uint32_t index, uint32_t lanes) {
    if ((lanes & ok) == 0) return;
    w.clock.acquire(b.mbarriers[index].done, lanes & ok, w.is_whole(lanes & ok));
  });
  w.set_predicate(in.op[0], ok);
}

// cp.async.mbarrier.arrive: the arrival of each lane takes place once its copies so far have
// landed.
void exec_copy_arrive(Warp& w, const Instr& in) {
  w.require_sources(in);
  Block& b = *w.block;
  b.note_progress();
  each_mbarrier(w, in, in.op[0], [&](uint32_t index, uint32_t lanes) {
    Mbarrier& m = b.mbarriers[index];
    each_lane(lanes, [&](unsigned l) {
      if ((in.aux & kNoInc) == 0) ++m.pending;
      if (m.pending == 0 || m.pending > kMaxMbarrierCount) {
        w.fail(ErrorKind::kBarrierMisuse, l,
               fmt::format("an arrival of copies at {}", b.describe_mbarrier(index)));
      }
      CopyArrival arrival{
          .instr = in.index, .thread = w.thread(l), .mbarrier = index, .before = w.copies_issued};
      w.clock.release(w.index, 1u << l, w.is_whole(1u << l), b.clocks, arrival.released);
      b.async.issue(b, std::move(arrival));
    });
  });
}

// Generic writes of these lanes become visible to the async proxy; `aux`: only mbarrier.init.
void exec_proxy_fence(Warp& w, const Instr& in) {
  w.block->clocks.fences[w.index].push_back({w.clock.now, w.mask, in.aux != 0});
  ++w.clock.now;
}
void exec_global_fence(Warp& w, const Instr&) {
  w.unfenced &= ~w.mask;
}
void exec_whole_fence(Warp& w, const Instr& in) {
  exec_proxy_fence(w, in);
  exec_global_fence(w, in);
}

template <ExecFn kExec, uint32_t kFlags = 0>
void bind_mbarrier(const Match& m, Instr& in) {
  in.aux = kFlags | (is_shared(m) ? 0u : kGeneric) | (m.has("expect_tx") ? kExpect : 0u) |
           (m.has("noComplete") ? kNoComplete : 0u) | (m.has("noinc") ? kNoInc : 0u);
  in.completes_on_mbarrier = kExec == exec_copy_arrive;
  if (kExec == exec_wait) in.control = Control::kSync;
  in.exec = kExec;
}

constexpr Row kRows[] = {
    {"mbarrier.init.$shared?.b64", "a s:u32", bind_mbarrier<exec_init>},
    {"mbarrier.inval.$shared?.b64", "a", bind_mbarrier<exec_inval>},
    {"mbarrier.arrive.release?.cta|cluster?.$sharedany?.b64", "d:b64 a s:u32?",
     bind_mbarrier<exec_arrive>},
    {"mbarrier.arrive.noComplete.release?.cta?.$shared?.b64", "d:b64 a s:u32",
     bind_mbarrier<exec_arrive>},
    {"mbarrier.arrive.expect_tx.release?.cta|cluster?.$sharedany?.b64", "d:b64 a s:u32",
     bind_mbarrier<exec_arrive>},
    {"mbarrier.expect_tx.relaxed?.cta|cluster?.$sharedany?.b64", "a s:u32",
     bind_mbarrier<exec_expect>},
    {"mbarrier.complete_tx.relaxed?.cta|cluster?.$sharedany?.b64", "a s:u32",
     bind_mbarrier<exec_expect>},
    {"mbarrier.try_wait|test_wait.parity.acquire?.cta|cluster?.$shared?.b64",
     "d:pred a s:u32 s:u32?", bind_mbarrier<exec_wait, kParity>},
    {"mbarrier.try_wait|test_wait.acquire?.cta|cluster?.$shared?.b64", "d:pred a s:b64 s:u32?",
     bind_mbarrier<exec_wait>},
    {"cp.async.mbarrier.arrive.noinc?.$shared?.b64", "a", bind_mbarrier<exec_copy_arrive>},
    {"fence.mbarrier_init.release.cluster", "",
     [](const Match&, Instr& in) {
       in.aux = 1;
       in.exec = exec_proxy_fence;
     }},
    {"fence.proxy.async", "", [](const Match&, Instr& in) { in.exec = exec_whole_fence; }},
    {"fence.proxy.async.$sharedany", "",
     [](const Match&, Instr& in) { in.exec = exec_proxy_fence; }},
    {"fence.proxy.async.global", "", [](const Match&, Instr& in) { in.exec = exec_global_fence; }},
};

}  // namespace

uint32_t barrier_offset(Warp& w, unsigned lane, uint64_t address, bool generic) {
  return check_shared(w, lane, generic ? address - kSharedWindow : address, kMbarrierBytes,
                      kMbarrierBytes);
}

uint32_t find_mbarrier(Warp& w, unsigned lane, uint32_t offset) {
  Block& b = *w.block;
  const int index = b.mbarriers.find(offset);
  if (index < 0) {
    w.fail(
        ErrorKind::kBarrierMisuse, lane,
        fmt::format("no mbarrier was initialised at shared address {:#x}", offset + kSharedBase));
  }
  const Mbarrier& m = b.mbarriers[static_cast<size_t>(index)];
  const Access access{w.thread(lane), w.current->index, &w.clock, false};
  if (b.launch.options.check_races && !b.shadow.ordered(m.init_thread, m.init_clock, access)) {
    w.fail(ErrorKind::kRace, lane,
           fmt::format("{} is used by a thread that nothing orders after its mbarrier.init",
                       b.describe_mbarrier(static_cast<uint32_t>(index))),
           initialiser(w, m));
  }
  return static_cast<uint32_t>(index);
}

std::array<uint32_t, kWarpLanes> mbarrier_operands(Warp& w, const Operand& base, int64_t offset,
                                                   bool generic) {
  Addresses address;
  compute_addresses(w, base, offset, address);
  std::array<uint32_t, kWarpLanes> out{};
  const unsigned first = w.first_lane();
  bool same = w.is_whole(w.mask);
  each_lane(w.mask, [&](unsigned l) { same = same && address[l] == address[first]; });
  // Lanes of a whole warp at one mbarrier are ordered after its initialisation alike, except for
  // the one that did it.
  unsigned checked = 0;
  each_lane(w.mask, [&](unsigned l) {
    out[l] = same && checked >= 2 ? out[first]
                                  : find_mbarrier(w, l, barrier_offset(w, l, address[l], generic));
    ++checked;
  });
  return out;
}

void require_init_fence(Warp& w, unsigned lane, uint32_t index) {
  const Block& b = *w.block;
  const Mbarrier& m = b.mbarriers[index];
  const Access access{w.thread(lane), w.current->index, &w.clock, false};
  if (!b.launch.options.check_races || b.shadow.fenced(m.init_thread, m.init_clock, access, true)) {
    return;
  }
  w.fail(ErrorKind::kMissingFence, lane,
         fmt::format("{} is used by the async proxy without fence.mbarrier_init or "
                     "fence.proxy.async behind its mbarrier.init",
                     b.describe_mbarrier(index)),
         initialiser(w, m));
}

std::span<const Row> mbarrier_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
