// Collectives within a warp: shuffles, votes, matches, reductions, warp barriers.
#include "runtime/device/emulator/semantics/collective.h"

#include <fmt/format.h>

#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {

void require_whole_warp(const Warp& w) {
  if (w.mask == kAllLanes) return;
  const uint32_t missing = ~w.mask;
  w.fail(
      ErrorKind::kDivergentCollective,
      static_cast<unsigned>(std::countr_zero(missing & w.exists ? missing & w.exists : missing)),
      fmt::format("all 32 lanes must execute this together; lanes {:#010x} are missing", missing));
}

void require_members(const Warp& w, uint32_t members) {
  const uint32_t unnamed = w.mask & ~members;
  if (unnamed != 0) {
    w.fail(ErrorKind::kDivergentCollective, static_cast<unsigned>(std::countr_zero(unnamed)),
           fmt::format(
               "lanes {:#010x} execute a collective whose member mask {:#010x} does not name them",
               unnamed, members));
  }
  const uint32_t missing = members & w.exists & ~w.mask;
  if (missing != 0) {
    w.fail(
        ErrorKind::kDivergentCollective, static_cast<unsigned>(std::countr_zero(missing)),
        fmt::format("lanes {:#010x} of the member mask {:#010x} are missing: {:#010x} execute it",
                    missing, members, w.mask));
  }
}

namespace {

// The member-mask operand: the same in all lanes that take part.
uint32_t check_members(const Warp& w, const Operand& op) {
  const uint32_t* s = w.src<uint32_t>(op);
  for_lanes(w.mask, [&](unsigned l) { require_members(w, s[l]); });
  return s[w.first_lane()];
}

enum Shuffle : uint32_t { kUp, kDown, kBfly, kIdx };

// PTX: shfl.sync. c holds the clamp in bits 0-4 and the segment mask in bits 8-12.
void exec_shfl(Warp& w, const Instr& in) {
  w.require_sources(in);
  const Operand* s = in.op + in.num_dst;
  check_members(w, s[3]);
  const uint32_t* a = w.src<uint32_t>(s[0]);
  const uint32_t* b = w.src<uint32_t>(s[1]);
  const uint32_t* c = w.src<uint32_t>(s[2]);
  uint32_t out[kWarpLanes];
  uint32_t inside = 0;
  uint32_t known = 0;
  for_lanes(w.mask, [&](unsigned lane) {
    const uint32_t segment = c[lane] >> 8 & 31;
    const uint32_t bound = c[lane] & 31;
    const uint32_t amount = b[lane] & 31;
    const uint32_t low = lane & segment;
    const uint32_t high = low | (bound & ~segment & 31);
    uint32_t from = 0;
    bool ok = false;
    switch (in.aux) {
      case kUp:
        from = lane - amount;
        ok = static_cast<int32_t>(from) >= static_cast<int32_t>(high);
        break;
      case kDown:
        from = lane + amount;
        ok = from <= high;
        break;
      case kBfly:
        from = lane ^ amount;
        ok = from <= high;
        break;
      default:
        from = low | (amount & ~segment & 31);
        ok = from <= high;
        break;
    }
    if (!ok) from = lane;
    inside |= static_cast<uint32_t>(ok) << lane;
    known |= (w.mask >> from & 1) << lane;  // a lane that takes no part gives an undefined value
    out[lane] = a[from];
  });
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = out[l]; });
  w.set_defined(in.op[0], known);
  if (in.num_dst == 2) w.set_predicate(in.op[1], inside);
}
void bind_shfl(const Match& m, Instr& in) {
  in.aux = m.has("up") ? kUp : (m.has("down") ? kDown : (m.has("bfly") ? kBfly : kIdx));
  in.exec = exec_shfl;
}

void exec_vote(Warp& w, const Instr& in) {
  w.require_sources(in);
  check_members(w, in.op[2]);
  const uint32_t votes = w.predicate(in.op[1]) & w.mask;
  switch (in.aux) {
    case 0:
      return w.set_predicate(in.op[0], votes == w.mask ? kAllLanes : 0);
    case 1:
      return w.set_predicate(in.op[0], votes != 0 ? kAllLanes : 0);
    case 2:
      return w.set_predicate(in.op[0], votes == w.mask || votes == 0 ? kAllLanes : 0);
    default:
      break;
  }
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = votes; });
  w.defined[in.op[0].defined] |= w.mask;
}
void bind_vote(const Match& m, Instr& in) {
  in.aux = m.has("all") ? 0 : (m.has("any") ? 1 : (m.has("uni") ? 2 : 3));
  in.exec = exec_vote;
}

template <class T>
void exec_match(Warp& w, const Instr& in) {
  w.require_sources(in);
  const Operand* s = in.op + in.num_dst;
  check_members(w, s[1]);
  const T* a = w.src<T>(s[0]);
  uint32_t out[kWarpLanes];
  uint32_t all = 0;
  for_lanes(w.mask, [&](unsigned l) {
    uint32_t same = 0;
    for_lanes(w.mask, [&](unsigned k) { same |= static_cast<uint32_t>(a[k] == a[l]) << k; });
    const bool whole = same == w.mask;
    all |= static_cast<uint32_t>(whole) << l;
    out[l] = in.aux == 0 || whole ? same : 0;
  });
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = out[l]; });
  w.defined[in.op[0].defined] |= w.mask;
  if (in.num_dst == 2) w.set_predicate(in.op[1], all);
}
void bind_match(const Match& m, Instr& in) {
  in.aux = m.has("all") ? 1 : 0;
  in.exec = m.type(0) == Type::kB32 ? exec_match<uint32_t> : exec_match<uint64_t>;
}

struct ReduceRow {
  std::string_view name;
  uint32_t (*apply)(uint32_t, uint32_t);
  uint32_t (*apply_signed)(uint32_t, uint32_t);
};
uint32_t min_u(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}
uint32_t max_u(uint32_t a, uint32_t b) {
  return a > b ? a : b;
}
uint32_t min_s(uint32_t a, uint32_t b) {
  return static_cast<int32_t>(a) < static_cast<int32_t>(b) ? a : b;
}
uint32_t max_s(uint32_t a, uint32_t b) {
  return static_cast<int32_t>(a) > static_cast<int32_t>(b) ? a : b;
}
uint32_t sum(uint32_t a, uint32_t b) {
  return a + b;
}
uint32_t bit_and(uint32_t a, uint32_t b) {
  return a & b;
}
uint32_t bit_or(uint32_t a, uint32_t b) {
  return a | b;
}
uint32_t bit_xor(uint32_t a, uint32_t b) {
  return a ^ b;
}
constexpr ReduceRow kReductions[] = {{"add", sum, sum},      {"min", min_u, min_s},
                                     {"max", max_u, max_s},  {"and", bit_and, bit_and},
                                     {"or", bit_or, bit_or}, {"xor", bit_xor, bit_xor}};

void exec_redux(Warp& w, const Instr& in) {
  w.require_sources(in);
  check_members(w, in.op[2]);
  const ReduceRow& row = kReductions[in.aux & 0xff];
  const auto apply = (in.aux & 0x100) != 0 ? row.apply_signed : row.apply;
  const uint32_t* a = w.src<uint32_t>(in.op[1]);
  uint32_t value = a[w.first_lane()];
  for_lanes(w.mask & (w.mask - 1), [&](unsigned l) { value = apply(value, a[l]); });
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = value; });
  w.defined[in.op[0].defined] |= w.mask;
}
void bind_redux(const Match& m, Instr& in) {
  for (uint32_t i = 0; i < std::size(kReductions); ++i) {
    if (m.has(kReductions[i].name)) in.aux = i;
  }
  in.aux |= m.type(0) == Type::kS32 ? 0x100u : 0u;
  in.exec = exec_redux;
}

void exec_activemask(Warp& w, const Instr& in) {
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = w.mask; });
  w.defined[in.op[0].defined] |= w.mask;
}

// The leader is the lowest member, as on the device (PTX leaves the choice open but fixed).
void exec_elect(Warp& w, const Instr& in) {
  w.require_sources(in);
  const uint32_t members = check_members(w, in.op[2]);
  const auto leader = static_cast<uint32_t>(std::countr_zero(members));
  uint32_t* d = w.dst<uint32_t>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = leader; });
  w.defined[in.op[0].defined] |= w.mask;
  w.set_predicate(in.op[1], 1u << leader);
}

void exec_warp_barrier(Warp& w, const Instr& in) {
  w.require_sources(in);
  const uint32_t members = check_members(w, in.op[0]) & w.exists;
  w.clock.sync(w.index, members, w.is_whole(members));
}

constexpr Row kRows[] = {
    {"shfl.sync.up|down|bfly|idx.b32", "d:b32 |d:pred? s:b32 s:b32 s:b32 s:b32", bind_shfl},
    {"vote.sync.all|any|uni.pred", "d:pred s:pred s:b32", bind_vote},
    {"vote.sync.ballot.b32", "d:b32 s:pred s:b32", bind_vote},
    {"match.any.sync.b32|b64", "d:b32 s:0 s:b32", bind_match},
    {"match.all.sync.b32|b64", "d:b32 |d:pred? s:0 s:b32", bind_match},
    {"redux.sync.add|min|max.u32|s32", "d:b32 s:b32 s:b32", bind_redux},
    {"redux.sync.and|or|xor.b32", "d:b32 s:b32 s:b32", bind_redux},
    {"activemask.b32", "d:b32", [](const Match&, Instr& in) { in.exec = exec_activemask; }},
    {"elect.sync", "d:b32 |d:pred s:b32", [](const Match&, Instr& in) { in.exec = exec_elect; }},
    {"bar.warp.sync", "s:b32", [](const Match&, Instr& in) { in.exec = exec_warp_barrier; }},
};

}  // namespace

std::span<const Row> collective_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
