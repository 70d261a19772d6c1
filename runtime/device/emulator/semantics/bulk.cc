// Bulk copies between global and shared memory, and their groups.
//
// A copy into shared memory completes on an mbarrier; a store out of it belongs to a bulk group of
// the issuing thread. When the bytes move is Options::async's choice (machine/async.h).
#include <fmt/format.h>

#include "runtime/device/emulator/semantics/access.h"
#include "runtime/device/emulator/semantics/barrier.h"
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

constexpr uint32_t kBulkAlign = 16;

void check_size(Warp& w, unsigned lane, uint32_t bytes) {
  if (bytes % kBulkAlign == 0 && bytes != 0) return;
  w.fail(ErrorKind::kMisaligned, lane,
         fmt::format("a bulk copy of {} bytes, which is not a multiple of {}", bytes, kBulkAlign));
}

std::byte* global_pointer(Warp& w, unsigned lane, uint64_t address, uint32_t bytes, bool write) {
  if (address % kBulkAlign != 0) {
    w.fail(ErrorKind::kMisaligned, lane,
           fmt::format("a bulk copy at global address {:#x}, which is not a multiple of {}",
                       address, kBulkAlign));
  }
  check_global(w, lane, address, bytes, write);
  return reinterpret_cast<std::byte*>(address);
}

// Operands: destination, source, size, mbarrier.
void exec_bulk_copy(Warp& w, const Instr& in) {
  w.require_sources(in);
  Block& b = *w.block;
  Addresses to, from, barrier;
  compute_addresses(w, in.op[0], in.offset, to);
  compute_addresses(w, in.op[1], in.offset2, from);
  compute_addresses(w, in.op[3], in.offset3, barrier);
  const uint32_t* size = w.src<uint32_t>(in.op[2]);
  each_lane(w.mask, [&](unsigned l) {
    check_size(w, l, size[l]);
    BulkCopy copy{.instr = in.index, .thread = w.thread(l), .bytes = size[l]};
    Segment s;
    s.global = global_pointer(w, l, from[l], size[l], false);
    s.shared = check_shared(w, l, to[l], size[l], kBulkAlign);
    s.bytes = size[l];
    copy.segments.push_back(s);
    issue_bulk_copy(w, l, barrier[l], std::move(copy));
  });
  b.note_progress();
}

// Operands: destination, source, size.
void exec_bulk_store(Warp& w, const Instr& in) {
  w.require_sources(in);
  Addresses to, from;
  compute_addresses(w, in.op[0], in.offset, to);
  compute_addresses(w, in.op[1], in.offset2, from);
  const uint32_t* size = w.src<uint32_t>(in.op[2]);
  each_lane(w.mask, [&](unsigned l) {
    check_size(w, l, size[l]);
    BulkStore store{.instr = in.index, .thread = w.thread(l)};
    Segment s;
    s.shared = check_shared(w, l, from[l], size[l], kBulkAlign);
    s.global = global_pointer(w, l, to[l], size[l], true);
    s.bytes = size[l];
    store.segments.push_back(s);
    issue_bulk_store(w, l, std::move(store));
  });
  w.block->note_progress();
}

void exec_prefetch(Warp& w, const Instr& in) {
  w.require_sources(in);
  Addresses from;
  compute_addresses(w, in.op[0], in.offset, from);
  const uint32_t* size = w.src<uint32_t>(in.op[1]);
  each_lane(w.mask, [&](unsigned l) {
    check_size(w, l, size[l]);
    global_pointer(w, l, from[l], size[l], false);
  });
}

void exec_commit(Warp& w, const Instr&) {
  each_lane(w.mask, [&](unsigned l) { ++w.block->async.bulk_groups[w.thread(l)]; });
}

// aux: groups that may stay in flight, twice; + 1 when only reading must be done.
void exec_wait(Warp& w, const Instr& in) {
  Block& b = *w.block;
  const uint32_t keep = in.aux / 2;
  each_lane(w.mask, [&](unsigned l) {
    const uint32_t groups = b.async.bulk_groups[w.thread(l)];
    b.async.wait(b, w, w.thread(l), groups > keep ? groups - keep : 0, in.aux % 2 != 0);
  });
}

void bind_copy(const Match&, Instr& in) {
  in.completes_on_mbarrier = true;
  in.exec = exec_bulk_copy;
}

// Cache policies have no meaning here; any value does.
void exec_policy(Warp& w, const Instr& in) {
  const uint64_t policy[kWarpLanes] = {};
  write_lanes(w, in.op[0], policy);
}

constexpr Row kRows[] = {
    {"cp.async.bulk.shared::cluster|shared::cta.global.mbarrier::complete_tx::bytes."
     "L2::cache_hint?",
     "a a s:u32 a s:b64?", bind_copy},
    {"cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint?", "a a s:u32 s:b64?",
     [](const Match&, Instr& in) { in.exec = exec_bulk_store; }},
    {"cp.async.bulk.prefetch.L2.global.L2::cache_hint?", "a s:u32 s:b64?",
     [](const Match&, Instr& in) { in.exec = exec_prefetch; }},
    {"createpolicy.fractional.L2::evict_last|L2::evict_normal|L2::evict_first|L2::evict_unchanged."
     "b64",
     "d:b64 s:f32?", [](const Match&, Instr& in) { in.exec = exec_policy; }},
    {"cp.async.bulk.commit_group", "", [](const Match&, Instr& in) { in.exec = exec_commit; }},
    {"cp.async.bulk.wait_group.read?", "i",
     [](const Match& m, Instr& in) {
       in.aux = static_cast<uint32_t>(m.constants.at(0)) * 2 + (m.has("read") ? 1u : 0u);
       in.exec = exec_wait;
     }},
};

}  // namespace

void issue_bulk_copy(Warp& w, unsigned lane, uint64_t barrier, BulkCopy copy) {
  Block& b = *w.block;
  if ((w.unfenced >> lane & 1) != 0) {
    w.fail(ErrorKind::kMissingFence, lane,
           "a bulk copy of what another launch may have written, without a fence.proxy.async for "
           "global memory behind the load that acquired it");
  }
  ++b.report.bulk_copies;
  copy.mbarrier = find_mbarrier(w, lane, barrier_offset(w, lane, barrier, false));
  require_init_fence(w, lane, copy.mbarrier);
  const Access access{w.thread(lane), copy.instr, &w.clock, false};
  for (const Segment& s : copy.segments) {
    const Finding f = b.shadow.issue_bulk(s.shared, s.bytes, access);
    if (f.hazard != Hazard::kNone) report_hazard(w, lane, f, "bulk copy");
  }
  b.async.issue(b, std::move(copy));
}

void issue_bulk_store(Warp& w, unsigned lane, BulkStore store) {
  Block& b = *w.block;
  ++b.report.bulk_copies;
  store.group = b.async.bulk_groups[w.thread(lane)];
  const Access access{w.thread(lane), store.instr, &w.clock, false};
  for (const Segment& s : store.segments) {
    const Finding f = b.shadow.begin_store(s.shared, s.bytes, access);
    if (f.hazard != Hazard::kNone) report_hazard(w, lane, f, "read");
  }
  b.async.issue(b, std::move(store));
}

std::span<const Row> bulk_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
