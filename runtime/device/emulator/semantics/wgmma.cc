// wgmma: issue and its rules. The arithmetic is in wgmma_compute.cc, what is in flight in
// machine/warpgroup.h.
//
// Shared memory is read in the name of the warpgroup's tensor core. A warp's rows of A must be
// ordered before that warp's instruction, B before those of all four warps.
#include "runtime/device/emulator/semantics/wgmma.h"

#include <fmt/format.h>

#include "runtime/device/emulator/semantics/access.h"
#include "runtime/device/emulator/semantics/bind.h"
#include "runtime/device/emulator/semantics/collective.h"

namespace sagejit::emulator {
namespace {

constexpr unsigned kWarpRows = kMmaM / kWarpgroupWarps;
constexpr uint32_t kAllWarps = (1u << kWarpgroupWarps) - 1;

uint32_t warpgroup_of(const Warp& w) {
  return w.index / kWarpgroupWarps;
}

void require_warpgroup(const Warp& w) {
  require_whole_warp(w);
  if (warpgroup_of(w) < w.block->warpgroups.size()) return;
  w.fail(ErrorKind::kDivergentCollective, w.first_lane(),
         fmt::format("the block's {} threads make no whole warpgroup of 128 here",
                     w.block->launch.num_threads));
}

uint64_t uniform_descriptor(Warp& w, const Operand& op) {
  const uint64_t* s = w.src<uint64_t>(op);
  each_lane(w.mask, [&](unsigned l) {
    if (s[l] != s[0]) {
      w.fail(ErrorKind::kDivergentCollective, l,
             fmt::format("a matrix descriptor is {:#x} in lane 0 and {:#x} here", s[0], s[l]));
    }
  });
  if ((s[0] >> 49 & 7) != 0) {
    w.fail(ErrorKind::kUnsupported, 0,
           fmt::format("matrix descriptor {:#x} with a base offset", s[0]));
  }
  return s[0];
}

bool uniform_predicate(Warp& w, const Operand& op) {
  const uint32_t bits = w.predicate(op);
  if (bits == 0 || bits == kAllLanes) return bits != 0;
  w.fail(ErrorKind::kDivergentCollective, static_cast<unsigned>(std::countr_zero(~bits)),
         fmt::format("scale-d is true in lanes {:#010x} only", bits));
}

LastWriter earlier(const Warp& w, const MmaRegister& r, bool is_write) {
  return {w.block->kernel.code[r.instr].line, w.thread_index(w.thread(0)), is_write};
}

// Register `i` of D or A: nobody else may use it in flight, and what others did with it must be
// fenced.
void check_register(Warp& w, unsigned i, const MmaRegister& r, bool accumulator, uint32_t shape) {
  const WarpMma& mma = w.mma;
  const char* what = accumulator ? "accumulator" : "fragment of A";
  if (r.touched == mma.fences + 1) {
    w.fail(ErrorKind::kMissingFence, 0,
           fmt::format("{} {} was accessed by another instruction since the last wgmma.fence", what,
                       i + 1),
           earlier(w, r, true));
  }
  const bool accumulating = r.accumulating > mma.waited;
  const bool other_shape = accumulator && r.accumulating != 0 && r.shape != shape;
  if (accumulating && (!accumulator || other_shape)) {
    w.fail(ErrorKind::kMissingWait, 0,
           fmt::format("{} {} is an accumulator of a wgmma of another kind in flight", what, i + 1),
           earlier(w, r, true));
  }
  if (other_shape && r.fences == mma.fences) {
    w.fail(ErrorKind::kMissingFence, 0,
           fmt::format("{} {} was written by a wgmma of another shape since the last wgmma.fence",
                       what, i + 1),
           earlier(w, r, true));
  }
  if (accumulator && r.feeding > mma.waited) {
    w.fail(ErrorKind::kMissingWait, 0,
           fmt::format("accumulator {} is a fragment of A of a wgmma in flight", i + 1),
           earlier(w, r, false));
  }
}

void lend_registers(Warp& w, const Instr& in, const MmaForm& form, bool scale_d) {
  WarpMma& mma = w.mma;
  if (mma.fences == 0) {
    w.fail(ErrorKind::kMissingFence, 0, "no wgmma.fence before the first wgmma.mma_async");
  }
  const unsigned num_d = form.num_d();
  if (scale_d) w.require(in, 0, num_d);
  const auto& slots = w.block->kernel.mma_slots;
  for (unsigned i = 0; i < in.num_mma; ++i) {
    const Operand& op = in.op[i];
    if (op.bank != Operand::kRegisters || slots[op.defined] == 0) continue;
    MmaRegister& r = mma.registers[slots[op.defined] - 1u];
    const bool accumulator = i < num_d;
    check_register(w, accumulator ? i : i - num_d, r, accumulator, form.shape());
    (accumulator ? r.accumulating : r.feeding) = mma.committed + 1;
    if (accumulator) {
      r.shape = form.shape();
      r.fences = mma.fences;
      w.defined[op.defined] = kAllLanes;
    }
    r.instr = in.index;
  }
}

// An operand in shared memory, or some rows of it.
struct SharedRows {
  uint64_t descriptor;
  unsigned first, rows;
  bool mn_major;
};

// They are read by a wgmma of commit group `group` that knows `known`.
void read_shared(Warp& w, const SharedRows& at, const Order& known, uint32_t group) {
  Block& b = *w.block;
  Chunks chunks;
  find_chunks(at.descriptor, at.first, at.rows, at.mn_major, chunks);
  WarpClock clock;
  const unsigned agent = kWarpgroupAgents + warpgroup_of(w);
  clock.order = known;
  clock.now = clock.order[agent] = group + 1;
  const Access access{agent_thread(agent), w.current->index, &clock, false};
  for (unsigned i = 0; i < 2 * at.rows; ++i) {
    const uint32_t offset = check_shared(w, 0, chunks[i], kChunkBytes, kChunkBytes);
    const Finding f = b.shadow.read_async(offset, kChunkBytes, access);
    if (f.hazard != Hazard::kNone) report_hazard(w, 0, f, "wgmma read");
  }
}

bool at_issue(Block& b, Warp& w) {
  const AsyncOrder order = b.launch.options.async;
  return order == AsyncOrder::kEarly ||
         (order == AsyncOrder::kRandom && (next_random(w.random) >> 32) % 2 == 0);
}

// Operands: D, A (descriptor or registers), descriptor of B, scale-d.
void exec_mma_async(Warp& w, const Instr& in) {
  require_warpgroup(w);
  Block& b = *w.block;
  const MmaForm form = MmaForm::unpack(in.aux);
  const unsigned num_d = form.num_d();
  w.require(in, num_d, in.num_ops);
  MmaOp op;
  op.instr = &in;
  op.descriptor_a = form.a_in_registers ? 0 : uniform_descriptor(w, in.op[num_d]);
  op.descriptor_b = uniform_descriptor(w, in.op[in.num_ops - 2u]);
  op.scale_d = uniform_predicate(w, in.op[in.num_ops - 1u]);
  op.group = w.mma.committed;
  lend_registers(w, in, form, op.scale_d);
  ++w.mma.open;
  b.note_progress();
  const uint32_t index = warpgroup_of(w);
  Warpgroup& group = b.warpgroups[index];
  MmaOp& logged = group.log(w, op);
  if (logged.issued == 0) {
    logged.known = w.clock.order;
  } else {
    meet(logged.known, w.clock.order);
  }
  const uint32_t rank = w.index % kWarpgroupWarps;
  logged.issued |= 1u << rank;
  if (!form.a_in_registers) {
    read_shared(w, {op.descriptor_a, rank * kWarpRows, kWarpRows, form.trans_a}, w.clock.order,
                op.group);
  }
  if (logged.issued != kAllWarps) return;
  ++b.report.wgmma;
  read_shared(w, {op.descriptor_b, 0, form.n, form.trans_b}, logged.known, op.group);
  if (at_issue(b, w)) group.finish_to(b, index, logged);
  b.wake(kWaitsWgmma + static_cast<int32_t>(index));
}

void exec_fence(Warp& w, const Instr&) {
  require_warpgroup(w);
  ++w.mma.fences;
}

void exec_commit(Warp& w, const Instr&) {
  require_warpgroup(w);
  ++w.mma.committed;
  w.mma.open = 0;
}

// aux: groups that may stay in flight.
void exec_wait(Warp& w, const Instr& in) {
  require_warpgroup(w);
  Block& b = *w.block;
  WarpMma& mma = w.mma;
  const uint32_t index = warpgroup_of(w);
  Warpgroup& group = b.warpgroups[index];
  const uint32_t groups = mma.committed > in.aux ? mma.committed - in.aux : 0;
  if (groups <= mma.waited) return;
  if (!group.issued(groups)) return b.suspend(w, kWaitsWgmma + static_cast<int32_t>(index));
  group.finish(b, index, groups);
  mma.waited = groups;
  // Reads of a group are stamped with its number + 1.
  uint32_t& known = w.clock.order[kWarpgroupAgents + index];
  known = std::max(known, groups + 1);
  group.forget_waited(b, index);
}

MmaElement element(std::string_view name) {
  if (name == "s8") return MmaElement::kS8;
  if (name == "u8") return MmaElement::kU8;
  if (name == "e4m3") return MmaElement::kE4M3;
  if (name == "e5m2") return MmaElement::kE5M2;
  return name == "f16" ? MmaElement::kF16 : MmaElement::kBF16;
}

// Segments of a row's pattern: ..., D type, A type, B type. Immediates: scale-a, scale-b, then
// trans-a (only when A is in shared memory) and trans-b for 16-bit types.
template <unsigned kTypesAt>
void bind_mma_async(const Match& m, Instr& in) {
  MmaForm form;
  form.n = m.mma_n;
  form.d = m.segments[kTypesAt] == "s32"   ? MmaAccumulator::kS32
           : m.segments[kTypesAt] == "f16" ? MmaAccumulator::kF16
                                           : MmaAccumulator::kF32;
  form.a = element(m.segments[kTypesAt + 1]);
  form.b = element(m.segments[kTypesAt + 2]);
  form.saturate = m.has("satfinite");
  form.a_in_registers = m.a_in_registers;
  const bool integer = form.d == MmaAccumulator::kS32;
  const bool halves = form.a == MmaElement::kF16 || form.a == MmaElement::kBF16;
  const auto& c = m.constants;
  const size_t trans = halves ? (form.a_in_registers ? 1 : 2) : 0;
  if (c.size() != (integer ? 0 : 2 + trans)) return;
  for (size_t i = 0; i < c.size(); ++i) {
    const bool ok = i < 2 ? c[i] == 1 || c[i] == -1 : c[i] == 0 || c[i] == 1;
    if (!ok) return;
  }
  if (!integer) form.negate = c[0] != c[1];
  form.trans_a = trans == 2 && c[2] != 0;
  form.trans_b = trans != 0 && c.back() != 0;
  in.aux = form.pack();
  in.num_mma = static_cast<uint8_t>(form.num_d() + (form.a_in_registers ? 4 : 0));
  in.exec = exec_mma_async;
}

constexpr Row kRows[] = {
    {"wgmma.fence.sync.aligned", "", [](const Match&, Instr& in) { in.exec = exec_fence; }},
    {"wgmma.commit_group.sync.aligned", "", [](const Match&, Instr& in) { in.exec = exec_commit; }},
    {"wgmma.wait_group.sync.aligned", "i",
     [](const Match& m, Instr& in) {
       in.aux = static_cast<uint32_t>(m.constants.at(0));
       in.control = Control::kSync;
       in.exec = exec_wait;
     }},
    {"wgmma.mma_async.sync.aligned.$wgmma_int.satfinite?.s32.s8|u8.s8|u8", "s:b32*H A s:b64 s:pred",
     bind_mma_async<5>},
    {"wgmma.mma_async.sync.aligned.$wgmma_int.s32.s8|u8.s8|u8.satfinite", "s:b32*H A s:b64 s:pred",
     bind_mma_async<4>},
    {"wgmma.mma_async.sync.aligned.$wgmma_k32.f32.e4m3|e5m2.e4m3|e5m2",
     "s:b32*H A s:b64 s:pred i i", bind_mma_async<4>},
    {"wgmma.mma_async.sync.aligned.$wgmma_k32.f16.e4m3|e5m2.e4m3|e5m2",
     "s:b32*Q A s:b64 s:pred i i", bind_mma_async<4>},
    {"wgmma.mma_async.sync.aligned.$wgmma_k16.f32.f16.f16", "s:b32*H A s:b64 s:pred i i i i?",
     bind_mma_async<4>},
    {"wgmma.mma_async.sync.aligned.$wgmma_k16.f32.bf16.bf16", "s:b32*H A s:b64 s:pred i i i i?",
     bind_mma_async<4>},
    {"wgmma.mma_async.sync.aligned.$wgmma_k16.f16.f16.f16", "s:b32*Q A s:b64 s:pred i i i i?",
     bind_mma_async<4>},
};

}  // namespace

uint32_t MmaForm::pack() const {
  return n | static_cast<uint32_t>(a) << 9 | static_cast<uint32_t>(b) << 12 |
         static_cast<uint32_t>(d) << 15 | uint32_t{a_in_registers} << 17 | uint32_t{trans_a} << 18 |
         uint32_t{trans_b} << 19 | uint32_t{negate} << 20 | uint32_t{saturate} << 21;
}

MmaForm MmaForm::unpack(uint32_t aux) {
  MmaForm f;
  f.n = aux & 511;
  f.a = static_cast<MmaElement>(aux >> 9 & 7);
  f.b = static_cast<MmaElement>(aux >> 12 & 7);
  f.d = static_cast<MmaAccumulator>(aux >> 15 & 3);
  f.a_in_registers = (aux >> 17 & 1) != 0;
  f.trans_a = (aux >> 18 & 1) != 0;
  f.trans_b = (aux >> 19 & 1) != 0;
  f.negate = (aux >> 20 & 1) != 0;
  f.saturate = (aux >> 21 & 1) != 0;
  return f;
}

std::span<const Row> wgmma_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
