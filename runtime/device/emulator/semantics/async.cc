// cp.async and its groups.
//
// A copy's bytes are pending in the shadow from issue until the issuing thread waits for its group;
// when the data itself moves is Options::async's choice.
#include <fmt/format.h>

#include "runtime/device/emulator/semantics/access.h"
#include "runtime/device/emulator/semantics/bind.h"

namespace sagejit::emulator {
namespace {

void copy_lanes(Warp& w, AsyncCopy& copy, uint32_t lanes) {
  for_lanes(lanes, [&](unsigned l) {
    std::byte* to = w.block->shared.data() + copy.destination[l];
    std::memcpy(to, reinterpret_cast<const void*>(copy.source[l]), copy.source_bytes[l]);
    std::memset(to + copy.source_bytes[l], 0, copy.bytes - copy.source_bytes[l]);
  });
  copy.moved |= lanes;
}

void check_source(Warp& w, AsyncCopy& copy, const uint32_t* size) {
  for_lanes(w.mask, [&](unsigned l) {
    const uint32_t wanted = size != nullptr ? size[l] : copy.bytes;
    if (wanted > copy.bytes) {
      w.fail(ErrorKind::kOutOfBounds, l,
             fmt::format("the source size {} of an asynchronous copy is more than its {} bytes",
                         wanted, copy.bytes));
    }
    if (copy.source[l] % copy.bytes != 0) {
      w.fail(
          ErrorKind::kMisaligned, l,
          fmt::format(
              "an asynchronous copy of {} bytes from address {:#x}, which is not a multiple of {}",
              copy.bytes, copy.source[l], copy.bytes));
    }
    copy.source_bytes[l] = static_cast<uint8_t>(wanted);
    // Nothing is read where the source size is 0, so the address may be anything.
    if (wanted != 0) check_global(w, l, copy.source[l], wanted, false);
  });
}

void move_at_issue(Warp& w, AsyncCopy& copy) {
  const AsyncOrder order = w.block->launch.options.async;
  if (order == AsyncOrder::kEarly) copy_lanes(w, copy, copy.mask);
  if (order != AsyncOrder::kRandom) return;
  // Any copy in flight may move now, each with its own odds.
  for (AsyncCopy& c : w.copies) {
    copy_lanes(w, c, c.mask & ~c.moved & static_cast<uint32_t>(next_random(w.random) >> 32));
  }
}

void exec_copy(Warp& w, const Instr& in) {
  w.require_sources(in);
  Block& b = *w.block;
  ++b.report.async_copies;
  AsyncCopy copy;
  copy.number = w.copies_issued++;
  copy.mask = w.mask;
  copy.instr = in.index;
  copy.bytes = in.aux;
  copy.group = w.commit_groups;
  Addresses to;
  compute_addresses(w, in.op[0], in.offset, to);
  compute_addresses(w, in.op[1], in.offset2, copy.source);
  check_source(w, copy, in.num_ops > 2 ? w.src<uint32_t>(in.op[2]) : nullptr);
  for (uint32_t m = w.mask; m != 0; m &= m - 1) {
    const auto l = static_cast<unsigned>(std::countr_zero(m));
    copy.destination[l] = check_shared(w, l, to[l], copy.bytes, copy.bytes);
    const Access access{w.thread(l), in.index, &w.clock, false};
    const Finding f = b.shadow.issue_copy(copy.destination[l], copy.bytes, access);
    if (f.hazard != Hazard::kNone) report_hazard(w, l, f, "asynchronous copy");
  }
  count_shared(b.report, w.mask, copy.destination.data(), copy.bytes);
  w.copies.push_back(copy);
  move_at_issue(w, w.copies.back());
}

// Lands what `covers(lane, group)` says of the active lanes' copies, in order of issue.
template <class Covers>
void land(Warp& w, Covers covers) {
  for (AsyncCopy& copy : w.copies) {
    uint32_t lanes = 0;
    for_lanes(copy.mask & w.mask,
              [&](unsigned l) { lanes |= static_cast<uint32_t>(covers(l, copy.group[l])) << l; });
    copy_lanes(w, copy, lanes & ~copy.moved);
    for_lanes(lanes, [&](unsigned l) {
      const Access access{w.thread(l), copy.instr, &w.clock, false};
      w.block->shadow.land_copy(copy.destination[l], copy.bytes, access);
    });
    copy.mask &= ~lanes;
  }
  std::erase_if(w.copies, [](const AsyncCopy& c) { return c.mask == 0; });
}

void exec_commit(Warp& w, const Instr&) {
  for_lanes(w.mask, [&](unsigned l) { ++w.commit_groups[l]; });
}
void exec_wait_group(Warp& w, const Instr& in) {
  land(w, [&](unsigned l, uint32_t group) { return group + in.aux < w.commit_groups[l]; });
}
void exec_wait_all(Warp& w, const Instr&) {
  land(w, [](unsigned, uint32_t) { return true; });
}

void bind_copy(const Match& m, Instr& in) {
  const int64_t bytes = m.constants.at(0);
  const bool ok = m.has("cg") ? bytes == 16 : bytes == 4 || bytes == 8 || bytes == 16;
  in.aux = static_cast<uint32_t>(bytes);
  if (ok) in.exec = exec_copy;
}

constexpr Row kRows[] = {
    {"cp.async.ca|cg.$shared.global.$l2?", "a a i s:u32?", bind_copy},
    {"cp.async.commit_group", "", [](const Match&, Instr& in) { in.exec = exec_commit; }},
    {"cp.async.wait_group", "i",
     [](const Match& m, Instr& in) {
       in.aux = static_cast<uint32_t>(m.constants.at(0));
       in.exec = exec_wait_group;
     }},
    {"cp.async.wait_all", "", [](const Match&, Instr& in) { in.exec = exec_wait_all; }},
};

}  // namespace

std::span<const Row> async_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
