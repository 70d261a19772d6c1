#include "runtime/device/emulator/semantics/access.h"

#include <fmt/format.h>

#include <algorithm>

namespace sagejit::emulator {
namespace {

// The thread that stands for an agent: of a warpgroup its first, of an mbarrier the issuer of the
// last copy that completed on it.
uint32_t issuer(const Block& b, uint32_t thread) {
  if (is_thread(thread)) return thread;
  const unsigned agent = agent_of(thread);
  if (agent < kMbarrierAgents) {
    return (agent - kWarpgroupAgents) * kWarpgroupWarps * kWarpLanes;
  }
  return b.mbarriers[agent - kMbarrierAgents].copy_thread;
}

std::optional<LastWriter> other_access(const Warp& w, const Finding& f) {
  if (f.instr == ~0u) return std::nullopt;
  LastWriter out;
  out.line = w.block->kernel.code[f.instr].line;
  out.thread = w.thread_index(issuer(*w.block, f.thread));
  out.is_write = f.hazard != Hazard::kRaceWithRead;
  return out;
}

// The address of the mbarrier that an agent's copies complete on.
uint32_t mbarrier_address(const Block& b, uint32_t thread) {
  return b.mbarriers[agent_of(thread) - kMbarrierAgents].offset + kSharedBase;
}

bool by_copies(uint32_t thread) {
  return !is_thread(thread) && agent_of(thread) >= kMbarrierAgents;
}
bool by_wgmma(uint32_t thread) {
  return !is_thread(thread) && agent_of(thread) < kMbarrierAgents;
}

// How far [address, address+bytes) is from the nearest range.
std::string describe_miss(const Launch& launch, uint64_t address, uint64_t bytes, bool write) {
  const MemoryRange* nearest = nullptr;
  uint64_t best = ~uint64_t{0};
  for (const MemoryRange& r : launch.memory) {
    if (address >= r.address && address + bytes <= r.address + r.bytes) {
      return fmt::format("a write to '{}', which is read-only, at byte {}", r.name,
                         address - r.address);
    }
    const uint64_t distance = address < r.address ? r.address - address
                              : address + bytes > r.address + r.bytes
                                  ? address + bytes - r.address - r.bytes
                                  : 0;
    if (distance < best) {
      best = distance;
      nearest = &r;
    }
  }
  const char* verb = write ? "write" : "read";
  if (nearest == nullptr)
    return fmt::format("a {} of {} bytes at {:#x}; the launch has no memory ranges", verb, bytes,
                       address);
  if (address < nearest->address) {
    return fmt::format(
        "a {} of {} bytes at {:#x}, {} bytes before the nearest range '{}' ({} bytes)", verb, bytes,
        address, nearest->address - address, nearest->name, nearest->bytes);
  }
  return fmt::format(
      "a {} of {} bytes at {:#x}, byte {} of the nearest range '{}' ({} bytes): {} bytes past its "
      "end",
      verb, bytes, address, address - nearest->address, nearest->name, nearest->bytes, best);
}

bool covers(const MemoryRange& r, uint64_t low, uint64_t high, bool write) {
  return low >= r.address && high <= r.address + r.bytes && high >= low && (r.writable || !write);
}

void check_alignment(Warp& w, const Addresses& address, uint32_t bytes) {
  uint64_t bad = 0;
  for_lanes(w.mask, [&](unsigned l) { bad |= address[l]; });
  if ((bad & (bytes - 1)) == 0) return;
  for_lanes(w.mask, [&](unsigned l) {
    if ((address[l] & (bytes - 1)) != 0) {
      w.fail(ErrorKind::kMisaligned, l,
             fmt::format("an access of {} bytes at address {:#x}, which is not a multiple of {}",
                         bytes, address[l], bytes));
    }
  });
}

void resolve_global(Warp& w, const Instr& in, const Request& q, const Addresses& address,
                    Pointers& pointer) {
  ++w.block->report.global_accesses;
  uint64_t low = ~uint64_t{0};
  uint64_t high = 0;
  for_lanes(w.mask, [&](unsigned l) {
    low = std::min(low, address[l]);
    high = std::max(high, address[l]);
  });
  const bool write = q.kind != AccessKind::kRead;
  const auto& memory = w.block->launch.memory;
  const uint32_t hint = w.block->range_hint[in.index];
  if (memory.empty() || !covers(memory[hint], low, high + q.bytes, write)) {
    for_lanes(w.mask, [&](unsigned l) { check_global(w, l, address[l], q.bytes, write); });
  }
  for_lanes(w.mask, [&](unsigned l) { pointer[l] = reinterpret_cast<std::byte*>(address[l]); });
}

void resolve_shared(Warp& w, const Instr& in, const Request& q, const Addresses& address,
                    Pointers& pointer) {
  Block& b = *w.block;
  uint32_t offset[kWarpLanes];
  uint64_t low = ~uint64_t{0};
  uint64_t high = 0;
  for_lanes(w.mask, [&](unsigned l) {
    low = std::min(low, address[l]);
    high = std::max(high, address[l]);
    offset[l] = static_cast<uint32_t>(address[l] - kSharedBase);
  });
  if (low < kSharedBase || high > b.launch.shared_end || q.bytes > b.launch.shared_end - high) {
    for_lanes(w.mask, [&](unsigned l) { check_shared(w, l, address[l], q.bytes, 1); });
  }
  count_shared(b.report, w.mask, offset, q.bytes);
  for (uint32_t m = w.mask; m != 0; m &= m - 1) {
    const auto l = static_cast<unsigned>(std::countr_zero(m));
    const Access access{w.thread(l), in.index, &w.clock, q.strong};
    if (q.kind != AccessKind::kWrite) {
      const Finding f = b.shadow.read(offset[l], q.bytes, access);
      if (f.hazard != Hazard::kNone) report_hazard(w, l, f, "read");
    }
    if (q.kind != AccessKind::kRead) {
      const Finding f = b.shadow.write(offset[l], q.bytes, access);
      if (f.hazard != Hazard::kNone) report_hazard(w, l, f, "write");
    }
    pointer[l] = b.shared.data() + offset[l];
  }
}

void resolve_local(Warp& w, const Request& q, const Addresses& address, Pointers& pointer) {
  const uint32_t size = w.block->kernel.local_bytes;
  for_lanes(w.mask, [&](unsigned l) {
    if (address[l] > size || q.bytes > size - address[l]) {
      w.fail(ErrorKind::kOutOfBounds, l,
             fmt::format(
                 "an access of {} bytes at {:#x} of local memory, which has {} bytes per thread",
                 q.bytes, address[l], size));
    }
    pointer[l] = w.local + l * size + address[l];
  });
}

void resolve_param(Warp& w, const Request& q, const Addresses& address, Pointers& pointer) {
  const auto& params = w.block->launch.params;
  for_lanes(w.mask, [&](unsigned l) {
    if (q.kind != AccessKind::kRead)
      w.fail(ErrorKind::kOutOfBounds, l, "kernel parameters are read-only");
    if (address[l] > params.size() || q.bytes > params.size() - address[l]) {
      w.fail(ErrorKind::kOutOfBounds, l,
             fmt::format("an access of {} bytes at byte {} of the {} bytes of kernel parameters",
                         q.bytes, address[l], params.size()));
    }
    pointer[l] = const_cast<std::byte*>(params.data()) + address[l];
  });
}

void resolve_space(Warp& w, const Instr& in, const Request& q, const Addresses& address,
                   Pointers& pointer) {
  switch (q.space) {
    case Space::kShared:
      return resolve_shared(w, in, q, address, pointer);
    case Space::kLocal:
      return resolve_local(w, q, address, pointer);
    case Space::kParam:
      return resolve_param(w, q, address, pointer);
    default:
      return resolve_global(w, in, q, address, pointer);
  }
}

// Generic addresses: lanes are resolved window by window.
void resolve_generic(Warp& w, const Instr& in, Request q, Addresses address, Pointers& pointer) {
  struct Window {
    uint64_t base;
    Space space;
  };
  static constexpr Window kWindows[] = {{kSharedWindow, Space::kShared},
                                        {kLocalWindow, Space::kLocal},
                                        {kParamWindow, Space::kParam}};
  const uint32_t all = w.mask;
  uint32_t rest = all;
  for (const Window& window : kWindows) {
    uint32_t lanes = 0;
    for_lanes(rest, [&](unsigned l) {
      lanes |= static_cast<uint32_t>((address[l] & kWindowMask) == window.base) << l;
    });
    if (lanes == 0) continue;
    for_lanes(lanes, [&](unsigned l) { address[l] -= window.base; });
    w.mask = lanes;
    q.space = window.space;
    resolve_space(w, in, q, address, pointer);
    rest &= ~lanes;
  }
  w.mask = rest;
  q.space = Space::kGlobal;
  if (rest != 0) resolve_global(w, in, q, address, pointer);
  w.mask = all;
}

uint32_t wavefronts_of(uint32_t* words, size_t count) {
  std::sort(words, words + count);
  count = static_cast<size_t>(std::unique(words, words + count) - words);
  uint32_t per_bank[32] = {};
  uint32_t most = 0;
  for (size_t i = 0; i < count; ++i) most = std::max(most, ++per_bank[words[i] % 32]);
  return most;
}

}  // namespace

void compute_addresses(const Warp& w, const Operand& base, int64_t offset, Addresses& out) {
  if (base.bytes == 4) {
    const uint32_t* s = w.src<uint32_t>(base);
    for (unsigned l = 0; l < kWarpLanes; ++l)
      out[l] = static_cast<uint32_t>(s[l] + static_cast<uint32_t>(offset));
  } else {
    const uint64_t* s = w.src<uint64_t>(base);
    for (unsigned l = 0; l < kWarpLanes; ++l) out[l] = s[l] + static_cast<uint64_t>(offset);
  }
}

void check_global(Warp& w, unsigned lane, uint64_t address, uint64_t bytes, bool write) {
  const auto& memory = w.block->launch.memory;
  auto after = std::upper_bound(memory.begin(), memory.end(), address,
                                [](uint64_t a, const MemoryRange& r) { return a < r.address; });
  if (after != memory.begin()) {
    const auto& range = *(after - 1);
    if (covers(range, address, address + bytes, write)) {
      w.block->range_hint[w.current->index] = static_cast<uint32_t>(after - 1 - memory.begin());
      return;
    }
  }
  w.fail(ErrorKind::kOutOfBounds, lane, describe_miss(w.block->launch, address, bytes, write));
}

uint32_t check_shared(Warp& w, unsigned lane, uint64_t address, uint32_t bytes, uint32_t align) {
  const uint32_t end = w.block->launch.shared_end;
  if ((address & (align - 1)) != 0) {
    w.fail(ErrorKind::kMisaligned, lane,
           fmt::format("shared address {:#x} is not a multiple of {}", address, align));
  }
  if (address < kSharedBase || address > end || bytes > end - address) {
    w.fail(ErrorKind::kOutOfBounds, lane,
           fmt::format(
               "an access of {} bytes at shared address {:#x}: byte {} of the block's {} bytes "
               "({} static, {} dynamic)",
               bytes, address, static_cast<int64_t>(address - kSharedBase), end - kSharedBase,
               w.block->kernel.static_shared_bytes, w.block->launch.dynamic_shared_bytes));
  }
  return static_cast<uint32_t>(address - kSharedBase);
}

void count_shared(Report& report, uint32_t mask, const uint32_t* offsets, uint32_t bytes) {
  const unsigned words_each = std::max(1u, bytes / 4);
  const unsigned lanes_each = kWarpLanes / words_each;  // a wavefront moves 32 words at most
  ++report.shared_accesses;
  for (unsigned first = 0; first < kWarpLanes; first += lanes_each) {
    uint32_t words[kWarpLanes];
    uint32_t in_bank[32];  // the one word seen in each bank of `banks`
    size_t count = 0;
    uint32_t banks = 0;
    bool simple = true;
    for (unsigned l = first; l < first + lanes_each; ++l) {
      if ((mask >> l & 1) == 0) continue;
      for (unsigned i = 0; i < words_each; ++i) {
        const uint32_t word = offsets[l] / 4 + i;
        const uint32_t bank = word % 32;
        simple = simple && ((banks >> bank & 1) == 0 || in_bank[bank] == word);
        banks |= 1u << bank;
        in_bank[bank] = word;
        words[count++] = word;
      }
    }
    if (count == 0) continue;
    const uint32_t wavefronts = simple ? 1 : wavefronts_of(words, count);
    report.shared_wavefronts += wavefronts;
    report.shared_conflicts += wavefronts - 1;
  }
}

namespace {

ErrorKind kind_of(const Finding& f) {
  switch (f.hazard) {
    case Hazard::kUninitialized:
      return ErrorKind::kUninitializedRead;
    case Hazard::kMissingWait:
      return ErrorKind::kMissingWait;
    case Hazard::kMissingFence:
      return ErrorKind::kMissingFence;
    case Hazard::kBarrierObject:
      return ErrorKind::kBarrierMisuse;
    default:
      return by_copies(f.thread) ? ErrorKind::kMissingWait : ErrorKind::kRace;
  }
}

// What is wrong with an access to a shared byte, to follow "a read of shared byte 0x480".
std::string explain(const Block& b, const Finding& f) {
  switch (f.hazard) {
    case Hazard::kUninitialized:
      return " that nobody wrote";
    case Hazard::kMissingWait:
      if (b.kernel.code[f.instr].completes_on_mbarrier)
        return ", the target of a bulk copy in flight: its mbarrier phase has not completed";
      return ", the target of an asynchronous copy whose issuing thread has not waited for it";
    case Hazard::kRaceWithCopy:
      return ", the target of an asynchronous copy in flight";
    case Hazard::kRaceWithStore:
      return ", the source of a bulk store in flight";
    case Hazard::kMissingFence:
      return " through the async proxy without a fence.proxy.async behind its generic write";
    case Hazard::kBarrierObject:
      return ", which is part of an mbarrier object";
    case Hazard::kRaceWithRead:
      if (by_wgmma(f.thread)) return ", which a wgmma reads that nothing orders before this";
      return " is not ordered after a read of it by a barrier";
    default:
      break;
  }
  if (!by_copies(f.thread)) return " is not ordered after its last write by a barrier";
  return fmt::format(
      " is not ordered after the bulk copy that wrote it: no wait on that phase of mbarrier {:#x}",
      mbarrier_address(b, f.thread));
}

}  // namespace

void report_hazard(Warp& w, unsigned lane, const Finding& f, const char* what) {
  if (f.hazard == Hazard::kNone) return;
  w.fail(kind_of(f), lane,
         fmt::format("a {} of shared byte {:#x}{}", what, f.offset + kSharedBase,
                     explain(*w.block, f)),
         other_access(w, f));
}

std::ptrdiff_t local_index(const Warp& w, const std::byte* pointer) {
  const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(kWarpLanes) * w.block->kernel.local_bytes;
  const auto index = reinterpret_cast<intptr_t>(pointer) - reinterpret_cast<intptr_t>(w.local);
  return index >= 0 && index < size ? index : -1;
}

void resolve(Warp& w, const Instr& in, const Request& q, const Addresses& address,
             Pointers& pointer) {
  if (q.kind != AccessKind::kRead) w.block->note_progress();
  check_alignment(w, address, q.bytes);
  if (q.space == Space::kReg) return resolve_generic(w, in, q, address, pointer);
  resolve_space(w, in, q, address, pointer);
}

}  // namespace sagejit::emulator
