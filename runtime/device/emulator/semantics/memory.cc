// ld, st, prefetch, fences. Those that are volatile or have a memory order are atomic between host
// threads.
#include <atomic>

#include "runtime/device/emulator/semantics/access.h"
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

// aux: space in the low byte, then flags.
enum MemoryFlags : uint32_t { kStrong = 256 };

Space space_of(const Match& m) {
  if (m.has("global")) return Space::kGlobal;
  if (m.has("shared") || m.has("shared::cta")) return Space::kShared;
  if (m.has("local")) return Space::kLocal;
  if (m.has("const")) return Space::kConst;
  return m.has("param") || m.has("param::entry") ? Space::kParam : Space::kReg;
}

uint32_t memory_aux(const Match& m) {
  const bool strong = m.has("volatile") || m.has("relaxed") || m.has("acquire") || m.has("release");
  return static_cast<uint32_t>(space_of(m)) | (strong ? kStrong : 0u);
}

Request request_of(const Instr& in, AccessKind kind, uint32_t bytes) {
  return {static_cast<Space>(in.aux & 0xff), kind, bytes, (in.aux & kStrong) != 0};
}

// Lanes whose bytes of local memory were all written; other memory is checked by its own rules.
template <class T>
uint32_t written_lanes(const Warp& w, const Pointers& pointer, size_t skip) {
  uint32_t lanes = kAllLanes;
  if (w.block->kernel.local_bytes == 0) return lanes;
  for_lanes(w.mask, [&](unsigned l) {
    const std::ptrdiff_t at = local_index(w, pointer[l]);
    if (at < 0) return;
    for (size_t i = 0; i < sizeof(T); ++i) {
      if (w.local_written[static_cast<size_t>(at) + skip + i] == 0) lanes &= ~(1u << l);
    }
  });
  return lanes;
}

template <class T>
T load(const std::byte* from, bool strong) {
  if (strong) {
    T& cell = *const_cast<T*>(reinterpret_cast<const T*>(from));
    return std::atomic_ref<T>(cell).load(std::memory_order_acquire);
  }
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <class T>
void store(std::byte* to, T value, bool strong) {
  if (strong) {
    std::atomic_ref<T>(*reinterpret_cast<T*>(to)).store(value, std::memory_order_release);
  } else {
    std::memcpy(to, &value, sizeof(T));
  }
}

template <class T>
void exec_ld(Warp& w, const Instr& in) {
  const unsigned count = in.num_dst;
  const bool strong = (in.aux & kStrong) != 0;
  w.require_sources(in);
  Addresses address;
  Pointers pointer;
  compute_addresses(w, in.op[count], in.offset, address);
  resolve(w, in, request_of(in, AccessKind::kRead, static_cast<uint32_t>(sizeof(T) * count)),
          address, pointer);
  if (strong && static_cast<Space>(in.aux & 0xff) == Space::kGlobal) w.block->poll(w);
  for (unsigned i = 0; i < count; ++i) {
    T values[kWarpLanes];
    for_lanes(w.mask, [&](unsigned l) { values[l] = load<T>(pointer[l] + i * sizeof(T), strong); });
    const uint32_t written = written_lanes<T>(w, pointer, i * sizeof(T));
    write_lanes(w, in.op[i], values);
    w.set_defined(in.op[i], written);
  }
}

template <class T>
void exec_st(Warp& w, const Instr& in) {
  const unsigned count = in.num_ops - 1u;
  w.require(in, 0, 1);
  Addresses address;
  Pointers pointer;
  compute_addresses(w, in.op[0], in.offset, address);
  const Request q = request_of(in, AccessKind::kWrite, static_cast<uint32_t>(sizeof(T) * count));
  // Local memory may hold undefined values, as registers may.
  const bool maybe_local = q.space == Space::kLocal || q.space == Space::kReg;
  if (!maybe_local) w.require(in, 1, in.num_ops);
  resolve(w, in, q, address, pointer);
  for (unsigned i = 0; i < count; ++i) {
    T values[kWarpLanes];
    read_lanes(w, in.op[1 + i], values);
    const uint32_t defined = w.defined_lanes(in.op[1 + i]);
    for_lanes(w.mask, [&](unsigned l) {
      store<T>(pointer[l] + i * sizeof(T), values[l], (in.aux & kStrong) != 0);
      if (!maybe_local) return;
      const std::ptrdiff_t at = local_index(w, pointer[l]);
      if (at < 0 && (defined >> l & 1) == 0) w.fail_undefined(in, 1 + i, 2 + i);
      if (at >= 0) std::memset(w.local_written + at + i * sizeof(T), defined >> l & 1, sizeof(T));
    });
  }
  if ((in.aux & kStrong) != 0) wrote(w, q.space);
}

template <class F>
void with_element(Type t, F&& f) {
  switch (t) {
    case Type::kS8:
      return f(Tag<int8_t>{});
    case Type::kS16:
      return f(Tag<int16_t>{});
    case Type::kS32:
      return f(Tag<int32_t>{});
    default:
      return with_bits(t, f);
  }
}

void bind_ld(const Match& m, Instr& in) {
  in.aux = memory_aux(m);
  with_element(m.types.back(), [&]<class T>(Tag<T>) {
    if (sizeof(T) * m.vector <= 16) in.exec = exec_ld<T>;
  });
}
void bind_st(const Match& m, Instr& in) {
  in.aux = memory_aux(m);
  with_element(m.types.back(), [&]<class T>(Tag<T>) {
    if (sizeof(T) * m.vector <= 16) in.exec = exec_st<T>;
  });
}

void exec_launch_dependents(Warp& w, const Instr&) {
  w.block->launch.turns->launch_dependents(w.block->launch.number);
}
void exec_await_grid(Warp& w, const Instr&) {
  w.block->await_grid(w);
}

// Blocks see each other's global writes at once, and shared memory is ordered by barriers only, so
// a fence has nothing left to do. Prefetches have no meaning.
void exec_nothing(Warp&, const Instr&) {}
void bind_nothing(const Match&, Instr& in) {
  in.exec = exec_nothing;
}

constexpr Row kRows[] = {
    {"ld.weak?.$space?.$cache?.$l1?.$l2?.v2|v4?.$any", "d:0*~ a", bind_ld},
    {"ld.global.nc.$cache?.$l1?.$l2?.v2|v4?.$any", "d:0*~ a", bind_ld},
    {"ld.volatile.$space?.v2|v4?.$any", "d:0*~ a", bind_ld},
    {"ld.relaxed|acquire.$scope.$space?.$l1?.$l2?.v2|v4?.$any", "d:0*~ a", bind_ld},
    {"st.weak?.$space?.$cache?.$l1?.$l2?.v2|v4?.$any", "a s:0*~", bind_st},
    {"st.volatile.$space?.v2|v4?.$any", "a s:0*~", bind_st},
    {"st.relaxed|release.$scope.$space?.$l1?.$l2?.v2|v4?.$any", "a s:0*~", bind_st},
    {"membar.cta|gl|sys", "", bind_nothing},
    {"fence.sc|acq_rel|acquire|release?.$scope", "", bind_nothing},
    {"prefetch.global|local?.L1|L2", "a", bind_nothing},
    {"prefetch.global.L2::evict_last|L2::evict_normal", "a", bind_nothing},
    {"prefetchu.L1", "a", bind_nothing},
    {"griddepcontrol.launch_dependents", "",
     [](const Match&, Instr& in) { in.exec = exec_launch_dependents; }},
    {"griddepcontrol.wait", "",
     [](const Match&, Instr& in) {
       in.control = Control::kSync;
       in.exec = exec_await_grid;
     }},
    {"nanosleep.u32", "s:u32", bind_nothing},
};

}  // namespace

std::span<const Row> memory_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
