// mov, packing and unpacking, address conversion.
#include "runtime/device/emulator/machine/block.h"
#include "runtime/device/emulator/semantics/bind.h"
#include "runtime/device/emulator/semantics/control.h"

namespace sagejit::emulator {
namespace {

template <class T>
void exec_mov(Warp& w, const Instr& in) {
  const uint32_t defined = w.defined_lanes(in.op[1]);
  T* d = w.dst<T>(in.op[0]);
  const T* s = w.src<T>(in.op[1]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = s[l]; });
  w.set_defined(in.op[0], defined);
}

// A special register may be wider than the destination of the mov.
template <class T>
void exec_mov_narrow(Warp& w, const Instr& in) {
  T values[kWarpLanes];
  read_lanes(w, in.op[1], values);
  write_lanes(w, in.op[0], values);
}

void exec_mov_pred(Warp& w, const Instr& in) {
  const uint32_t defined = w.defined_lanes(in.op[1]);
  w.set_predicate(in.op[0], w.predicate(in.op[1]));
  w.set_defined(in.op[0], defined);
}

// Narrow parts, least significant first, and one wide value.
template <class Wide, class Part>
void exec_pack(Warp& w, const Instr& in) {
  constexpr unsigned kParts = sizeof(Wide) / sizeof(Part);
  uint32_t defined = kAllLanes;
  Wide values[kWarpLanes] = {};
  for (unsigned i = 0; i < kParts; ++i) {
    defined &= w.defined_lanes(in.op[1 + i]);
    const Part* s = w.src<Part>(in.op[1 + i]);
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      values[l] = static_cast<Wide>(values[l] | static_cast<Wide>(s[l]) << (8 * sizeof(Part) * i));
    }
  }
  write_lanes(w, in.op[0], values);
  w.set_defined(in.op[0], defined);
}
template <class Wide, class Part>
void exec_unpack(Warp& w, const Instr& in) {
  constexpr unsigned kParts = sizeof(Wide) / sizeof(Part);
  const uint32_t defined = w.defined_lanes(in.op[kParts]);
  Wide values[kWarpLanes];
  read_lanes(w, in.op[kParts], values);
  for (unsigned i = 0; i < kParts; ++i) {
    Part* d = w.dst<Part>(in.op[i]);
    for_lanes(w.mask,
              [&](unsigned l) { d[l] = static_cast<Part>(values[l] >> (8 * sizeof(Part) * i)); });
    w.set_defined(in.op[i], defined);
  }
}

template <class Wide, class Part>
ExecFn choose_pack(bool unpack) {
  return unpack ? exec_unpack<Wide, Part> : exec_pack<Wide, Part>;
}

void bind_pack(const Match& m, Instr& in) {
  const unsigned parts = in.num_ops - 1u;
  const bool unpack = in.num_dst > 1;
  switch (info(m.type(0)).bytes * 10 + parts) {
    case 22:
      in.exec = choose_pack<uint16_t, uint8_t>(unpack);
      return;
    case 42:
      in.exec = choose_pack<uint32_t, uint16_t>(unpack);
      return;
    case 44:
      in.exec = choose_pack<uint32_t, uint8_t>(unpack);
      return;
    case 82:
      in.exec = choose_pack<uint64_t, uint32_t>(unpack);
      return;
    case 84:
      in.exec = choose_pack<uint64_t, uint16_t>(unpack);
      return;
    default:
      return;
  }
}

void bind_mov(const Match& m, Instr& in) {
  if (m.type(0) == Type::kPred) {
    in.exec = exec_mov_pred;
  } else if (in.num_ops > 2) {
    bind_pack(m, in);
  } else {
    const bool same = m.operands[0].bytes == m.operands[1].bytes;
    with_bits(m.type(0),
              [&]<class T>(Tag<T>) { in.exec = same ? exec_mov<T> : exec_mov_narrow<T>; });
  }
}

// cvta: a window is added to or taken from an address of the space. Global and const addresses are
// generic.
void exec_cvta(Warp& w, const Instr& in) {
  w.require_sources(in);
  static constexpr uint64_t kWindows[] = {0, kSharedWindow, kLocalWindow, kParamWindow};
  const uint64_t window = kWindows[in.aux & 3];
  const bool to_space = (in.aux & 4) != 0;
  const uint64_t* s = w.src<uint64_t>(in.op[1]);
  uint64_t* d = w.dst<uint64_t>(in.op[0]);
  for_lanes(w.mask, [&](unsigned l) { d[l] = to_space ? s[l] - window : s[l] + window; });
  w.defined[in.op[0].defined] |= w.mask;
}
uint32_t window_of(const Match& m) {
  if (m.has("shared") || m.has("shared::cta")) return 1;
  if (m.has("local")) return 2;
  return m.has("param") || m.has("param::entry") ? 3 : 0;
}
void bind_cvta(const Match& m, Instr& in) {
  in.aux = window_of(m) | (m.has("to") ? 4u : 0u);
  in.exec = exec_cvta;
}

void exec_isspacep(Warp& w, const Instr& in) {
  w.require_sources(in);
  static constexpr uint64_t kWindows[] = {0, kSharedWindow, kLocalWindow, kParamWindow};
  const uint64_t* s = w.src<uint64_t>(in.op[1]);
  uint32_t bits = 0;
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const uint64_t window = s[l] & kWindowMask;
    const bool host = window < kSharedWindow || window > kParamWindow;
    bits |= static_cast<uint32_t>(in.aux == 0 ? host : window == kWindows[in.aux]) << l;
  }
  w.set_predicate(in.op[0], bits);
}
void bind_isspacep(const Match& m, Instr& in) {
  in.aux = window_of(m);
  in.exec = exec_isspacep;
}

void exec_clock(Warp& w, const Instr& in) {
  uint64_t values[kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) values[l] = in.special->value(w, l);
  write_lanes(w, in.op[0], values);
}

constexpr Row kRows[] = {
    {"mov.pred|$any", "d:0% s:0%", bind_mov},
    {"cvta.to?.global|const|local|param|param::entry|$shared.u64", "d:u64 s:u64", bind_cvta},
    {"isspacep.global|const|local|param|param::entry|$shared", "d:pred s:u64", bind_isspacep},
};

}  // namespace

void bind_clock_read(const SpecialValue& value, Instr& in) {
  in.special = &value;
  in.exec = in.num_ops == 2 && in.num_dst == 1 ? exec_clock : nullptr;
}

std::span<const Row> move_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
