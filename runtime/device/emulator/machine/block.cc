#include "runtime/device/emulator/machine/block.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

namespace sagejit::emulator {
namespace {

// Warp instructions before another warp gets its turn, so that spinning on memory makes progress.
constexpr uint64_t kSlice = 2048;
constexpr uint64_t kSlicesPerCopy = 64;
// A load that gives the other host threads their turn takes as long as so many warp instructions:
// a wait that never ends meets Options::max_steps in time.
constexpr uint64_t kStepsPerPoll = 64;
constexpr uint32_t kVainPolls = 1 << 16;

}  // namespace

Block::Block(const Launch& l)
    : launch(l),
      kernel(*l.kernel),
      shared(l.shared_end - kSharedBase),
      warps((l.num_threads + kWarpLanes - 1) / kWarpLanes),
      range_hint(kernel.code.size(), 0) {
  const size_t count = warps.size();
  register_file_.resize(count * kernel.register_bytes + 64);
  defined_.resize(count * kernel.num_defined);
  local_.resize(count * kWarpLanes * kernel.local_bytes);
  local_written_.resize(local_.size());
  auto* registers = register_file_.data();
  registers += (64 - reinterpret_cast<uintptr_t>(registers) % 64) % 64;
  for (size_t i = 0; i < count; ++i) {
    Warp& w = warps[i];
    w.block = this;
    w.index = static_cast<uint32_t>(i);
    w.banks[Operand::kRegisters] = registers + i * kernel.register_bytes;
    w.banks[Operand::kConstants] = const_cast<std::byte*>(l.constants.data());
    w.defined = defined_.data() + i * kernel.num_defined;
    w.local = local_.data() + i * kWarpLanes * kernel.local_bytes;
    w.local_written = local_written_.data() + i * kWarpLanes * kernel.local_bytes;
    w.groups.reserve(kWarpLanes + 1);
  }
}

void Block::start_warps() {
  std::fill(defined_.begin(), defined_.end(), 0);
  std::fill(local_written_.begin(), local_written_.end(), uint8_t{0});
  for (Warp& w : warps) {
    const uint32_t lanes = std::min(kWarpLanes, launch.num_threads - w.index * kWarpLanes);
    w.defined[0] = kAllLanes;
    w.exists = lanes == kWarpLanes ? kAllLanes : (1u << lanes) - 1;
    w.exited = 0;
    w.groups.assign(1, Group{.pc = 0, .mask = w.exists});
    w.independent = false;
    w.clock = WarpClock{};
    w.mma.fences = w.mma.committed = w.mma.waited = w.mma.open = 0;
    w.mma.registers.assign(kernel.num_mma_slots, MmaRegister{});
    w.mma.thread_registers = launch.thread_registers;
    w.copies.clear();
    w.commit_groups.fill(0);
    w.random = random_ ^ (uint64_t{w.index} + 1) * 0x9e3779b97f4a7c15ull;
    w.steps = 0;
    w.awaited_grid = w.unfenced = 0;
    fill_specials(w, kernel);
  }
}

void Block::run(uint64_t linear) {
  ctaid = {static_cast<uint32_t>(linear % launch.grid[0]),
           static_cast<uint32_t>(linear / launch.grid[0] % launch.grid[1]),
           static_cast<uint32_t>(linear / launch.grid[0] / launch.grid[1])};
  random_ =
      (launch.options.seed + 1) * 0x9e3779b97f4a7c15ull ^ (linear + 1) * 0xbf58476d1ce4e5b9ull;
  if (random_ == 0) random_ = 1;
  const auto num_groups =
      static_cast<uint32_t>((warps.size() + kWarpgroupWarps - 1) / kWarpgroupWarps);
  slow_group_ = static_cast<uint32_t>(next_random(random_) % (num_groups + 1));
  barriers.fill(Barrier{});
  clocks.reset();
  mbarriers.reset(static_cast<uint32_t>(shared.size()));
  async.reset(launch.num_threads);
  warpgroups.assign(launch.num_threads / kWarpLanes / kWarpgroupWarps, Warpgroup{});
  free_registers = 0;
  polls_ = 0;
  vain_polls_ = 0;
  seen_ = ~uint64_t{0};
  awaited_grid_ = false;
  shadow.reset(static_cast<uint32_t>(shared.size()), static_cast<uint32_t>(warps.size()),
               launch.options.check_races, clocks);
  start_warps();
  uint64_t steps = 0;
  uint64_t slices = 0;
  for (uint32_t at = 0;;) {
    if (launch.options.async == AsyncOrder::kRandom) {
      async.deliver_random(*this, next_random(random_));
    }
    at = next_warp(at);
    if (at == warps.size()) {
      if (!unblock()) break;
      at = 0;
      continue;
    }
    Warp& w = warps[at];
    const uint64_t before = w.steps;
    const uint64_t end = before + std::min(kSlice, launch.options.max_steps - steps);
    while (w.steps < end && choose_group(w)) {
      step_group(w, end);
      launch.turns->give_way(launch.number);
    }
    steps += w.steps - before;
    // Threads that spin on memory must not keep copies from landing for ever, nor the launch
    // before.
    if (w.steps >= end && ++slices % kSlicesPerCopy == 0 && !async.deliver_awaited(*this)) {
      pass_grid_waits();
    }
    if (steps >= launch.options.max_steps) {
      w.fail(ErrorKind::kStepLimit, w.first_lane(),
             fmt::format("the block executed {} warp instructions (Options::max_steps)", steps));
    }
    ++at;
  }
  report.warp_steps += steps;
  const bool done =
      std::all_of(warps.begin(), warps.end(), [](const Warp& w) { return w.groups.empty(); });
  if (!done) fail_deadlock();
  check_finished();
}

void Block::poll(Warp& w) {
  w.steps += kStepsPerPoll;
  if (launch.is_dependent) w.unfenced |= w.mask & ~w.awaited_grid;
  if (launch.turns->has_failed() && ++vain_polls_ > kVainPolls) throw Abandoned{};
  launch.turns->poll(launch.number, seen_);
  std::this_thread::yield();
}

void Block::await_grid(Warp& w) {
  if (!launch.turns->is_previous_complete(launch.number)) return suspend(w, kWaitsGrid);
  awaited_grid_ = true;
  w.awaited_grid |= w.mask;
  w.unfenced &= ~w.mask;
}

// Lets threads go on that wait for the launch before; false when there are none.
bool Block::pass_grid_waits() {
  if (!awaited(kWaitsGrid)) return false;
  launch.turns->await_previous(launch.number);
  wake(kWaitsGrid);
  return true;
}

// Warps of a warpgroup that did not take part in what the others executed together.
void Block::check_warpgroups() {
  for (uint32_t i = 0; i < warps.size() / kWarpgroupWarps * kWarpgroupWarps; ++i) {
    Warp& w = warps[i];
    const Warpgroup& group = warpgroups[i / kWarpgroupWarps];
    const uint32_t rank = i % kWarpgroupWarps;
    const Instr* missed = nullptr;
    if (group.next_resize[rank] < group.resizes.size()) {
      missed = &kernel.code[group.resizes[group.next_resize[rank]]];
    }
    if (group.next_op[rank] < group.first_op + group.ops.size()) {
      missed = group.ops[group.next_op[rank] - group.first_op].instr;
    }
    if (missed == nullptr) continue;
    w.current = missed;
    w.fail(ErrorKind::kDivergentCollective, 0,
           fmt::format("warp {} has not executed this with the other warps of its warpgroup", i));
  }
}

// No warp can run. Lands an asynchronous effect that somebody waits for; failing that, lets lanes
// pass others of their warp that wait; failing that, waits for the launch before; failing that,
// lets waits on mbarriers end without success, which they may. False when that was tried in vain.
bool Block::unblock() {
  constexpr uint32_t kPolls = 64;  // polling threads may look at many things before they act
  if (async.deliver_awaited(*this)) return true;
  for (Warp& w : warps) {
    if (w.independent) continue;
    w.independent = true;
    if (runnable_group(w) >= 0) return true;
    w.independent = false;
  }
  if (pass_grid_waits()) return true;
  if (progress_at_poll_ != progress_) polls_ = 0;
  progress_at_poll_ = progress_;
  if (++polls_ > kPolls) return false;
  bool any = false;
  for (Warp& w : warps) {
    for (Group& g : w.groups) {
      if (g.barrier < kWaitsMbarrier || g.barrier >= kWaitsWgmma) continue;
      g.barrier = kRuns;
      g.gives_up = true;
      any = true;
    }
    w.independent = false;
  }
  return any;
}

void Block::check_finished() {
  async.finish(*this);
  check_warpgroups();
  if (launch.is_dependent && !awaited_grid_) {
    warps[0].fail(ErrorKind::kMissingGridWait, 0,
                  "the block ended without griddepcontrol.wait: launches behind this one can start "
                  "before the one before it is complete");
  }
  for (Warp& w : warps) {
    if (w.mma.waited == w.mma.committed && w.mma.open == 0) continue;
    const Warpgroup& group = warpgroups[w.index / kWarpgroupWarps];
    w.current = group.ops.empty() ? w.current : group.ops.front().instr;
    w.fail(ErrorKind::kMissingWait, 0, "the warp ended with this wgmma in flight");
  }
}

// Round robin from `from`, or a random runnable warp with a seed; warps.size() when none can run.
// With a seed one warpgroup falls behind the others as far as they let it.
uint32_t Block::next_warp(uint32_t from) {
  constexpr uint32_t kTurnsOfSlow =
      64;  // of which one is theirs: others may spin on what they write
  const auto count = static_cast<uint32_t>(warps.size());
  uint32_t slow = count;
  if (launch.options.seed != 0) {
    from = static_cast<uint32_t>(next_random(random_) % count);
    if (next_random(random_) % kTurnsOfSlow != 0) slow = slow_group_ * kWarpgroupWarps;
  }
  uint32_t last = count;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t at = (from + i) % count;
    if (runnable_group(warps[at]) < 0) continue;
    if (at - at % kWarpgroupWarps != slow) return at;
    last = at;
  }
  return last;
}

// The group whose position is lowest; -1 when there is none that can run, or when it would pass
// one that is set aside.
int Block::runnable_group(const Warp& w) const {
  const auto& groups = w.groups;
  int best = -1;
  for (uint32_t i = 0; i < groups.size(); ++i) {
    const bool waits = groups[i].barrier != kRuns;
    if (waits && (groups[i].barrier < kWaitsMbarrier || w.independent)) continue;
    if (best < 0 || kernel.code[groups[i].pc].position <
                        kernel.code[groups[static_cast<size_t>(best)].pc].position) {
      best = static_cast<int>(i);
    }
  }
  return best >= 0 && groups[static_cast<size_t>(best)].barrier == kRuns ? best : -1;
}

// Joins groups at the same place and picks the one whose position is lowest; false when none can
// run.
bool Block::choose_group(Warp& w) {
  auto& groups = w.groups;
  if (groups.size() == 1) {
    w.running = 0;
    return groups[0].barrier < 0;
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    for (size_t j = i + 1; j < groups.size();) {
      if (groups[i].pc == groups[j].pc && groups[i].barrier < 0 && groups[j].barrier < 0) {
        groups[i].mask |= groups[j].mask;
        groups[i].gives_up |= groups[j].gives_up;
        groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(j));
      } else {
        ++j;
      }
    }
  }
  const int best = runnable_group(w);
  if (best >= 0) w.running = static_cast<uint32_t>(best);
  return best >= 0;
}

// Runs the chosen group until control changes, lanes may rejoin, or `end` steps.
void Block::step_group(Warp& w, uint64_t end) {
  const Instr* code = kernel.code.data();
  const bool diverged = w.groups.size() > 1;
  const uint32_t lanes = w.groups[w.running].mask;
  uint32_t pc = w.groups[w.running].pc;
  const uint64_t before = w.steps;
  uint64_t thread_steps = 0;
  for (bool first = true;; first = false) {
    const Instr& in = code[pc];
    if (w.steps >= end || (diverged && in.block_start && !first)) {
      w.groups[w.running].pc = pc;
      break;
    }
    w.current = &in;
    w.mask = lanes;
    if (in.guarded) {
      if ((w.defined_lanes(in.guard) & lanes) != lanes) w.fail_guard(in);
      w.mask = lanes & w.predicate(in.guard);
    }
    ++w.steps;
    thread_steps += w.mask == kAllLanes ? kWarpLanes : static_cast<unsigned>(std::popcount(w.mask));
    ++pc;
    if (w.mask == 0) continue;
    if (in.touches_mma) touch_mma_registers(w, in);
    if (in.control == Control::kNone) {
      in.exec(w, in);
      continue;
    }
    w.groups[w.running].pc = pc;
    in.exec(w, in);
    break;
  }
  report.instructions += thread_steps;
  if (diverged) report.divergent_steps += w.steps - before;
}

void Block::arrive(Warp& w, uint32_t id, uint32_t expected, bool waits) {
  Barrier& b = barriers[id];
  if (expected == 0) expected = static_cast<uint32_t>(warps.size()) * kWarpLanes;
  if (expected % kWarpLanes != 0 || expected > warps.size() * kWarpLanes) {
    w.fail(
        ErrorKind::kDeadlock, w.first_lane(),
        fmt::format("barrier {} for {} threads: the count must be a multiple of 32 of at most the "
                    "block's {} threads",
                    id, expected, launch.num_threads));
  }
  if (b.expected != 0 && b.expected != expected) {
    w.fail(ErrorKind::kDeadlock, w.first_lane(),
           fmt::format("barrier {} is awaited for {} threads by some and {} by others", id,
                       b.expected, expected));
  }
  b.expected = expected;
  if ((b.lanes[w.index] & w.mask) != 0) {
    w.fail(ErrorKind::kDeadlock, w.first_lane(),
           fmt::format("the warp arrives at barrier {} again before the others have: the barrier "
                       "counts arrivals, not warps",
                       id));
  }
  b.lanes[w.index] |= w.mask;
  // Hardware counts warps: a whole warp is 32 threads even when the block's last warp is short.
  b.arrived += w.mask == w.exists ? kWarpLanes : static_cast<uint32_t>(std::popcount(w.mask));
  w.clock.release(w.index, w.mask, w.is_whole(w.mask), clocks, b.clock);
  note_progress();
  if (waits) {
    Group& g = w.groups[w.running];
    if (w.mask != g.mask) {
      g.mask &= ~w.mask;
      w.groups.push_back({g.pc, w.mask, static_cast<int32_t>(id)});
    } else {
      g.barrier = static_cast<int32_t>(id);
    }
  }
  if (b.arrived > b.expected) {
    w.fail(ErrorKind::kDeadlock, w.first_lane(),
           fmt::format("{} threads arrived at barrier {}, which awaits {}", b.arrived, id,
                       b.expected));
  }
  if (b.arrived == b.expected) complete(id);
}

void Block::complete(uint32_t id) {
  Barrier& b = barriers[id];
  ++report.barriers;
  for (Warp& w : warps) {
    for (Group& g : w.groups) {
      if (g.barrier != static_cast<int32_t>(id)) continue;
      w.clock.acquire(b.clock, g.mask, w.is_whole(g.mask));
      w.clock.sync(w.index, g.mask, w.is_whole(g.mask));
      if (b.reduces) finish_reduction(w, g, b);
      g.barrier = -1;
    }
  }
  b = Barrier{};
}

void Block::exit_lanes(Warp& w, uint32_t lanes) {
  Group& g = w.groups[w.running];
  note_progress();
  w.exited |= lanes;
  g.mask &= ~lanes;
  if (g.mask == 0) w.groups.erase(w.groups.begin() + w.running);
  w.running = 0;
}

void Block::suspend(Warp& w, int32_t what) {
  Group& g = w.groups[w.running];
  if (w.mask != g.mask) {
    g.mask &= ~w.mask;
    w.groups.push_back(
        {.pc = w.current->index, .mask = w.mask, .barrier = what, .failed_at = w.current->index});
  } else {
    g.pc = w.current->index;
    g.barrier = what;
  }
}

void Block::wake(int32_t what) {
  note_progress();
  for (Warp& w : warps) {
    for (Group& g : w.groups) {
      if (g.barrier != what) continue;
      g.barrier = kRuns;
      w.independent = false;
    }
  }
}

bool Block::awaited(int32_t what) const {
  for (const Warp& w : warps) {
    for (const Group& g : w.groups) {
      if (g.barrier == what) return true;
    }
  }
  return false;
}

std::string Block::describe_wait(const Warp& w, const Group& g) const {
  if (g.barrier >= kWaitsRegisters) {
    return fmt::format("for registers: {} in the block's pool", free_registers);
  }
  if (g.barrier >= kWaitsWgmma) {
    std::string missing;
    const uint32_t first = w.index / kWarpgroupWarps * kWarpgroupWarps;
    for (const MmaOp& op : warpgroups[w.index / kWarpgroupWarps].ops) {
      for (uint32_t i = 0; i < kWarpgroupWarps && missing.empty(); ++i) {
        if ((op.issued >> i & 1) == 0) {
          missing =
              fmt::format("warp {} has not executed that of line {}", first + i, op.instr->line);
        }
      }
    }
    return fmt::format("for wgmma of their warpgroup: {}", missing);
  }
  if (g.barrier >= kWaitsMbarrier) {
    return "on " + describe_mbarrier(static_cast<uint32_t>(g.barrier - kWaitsMbarrier));
  }
  const Barrier& b = barriers[static_cast<size_t>(g.barrier)];
  return fmt::format("on barrier {} ({} of {} threads arrived)", g.barrier, b.arrived, b.expected);
}

void Block::fail_deadlock() {
  std::string message = "no thread of the block can run:";
  const Instr* at = nullptr;
  const Group* first = nullptr;
  Warp* owner = nullptr;
  for (Warp& w : warps) {
    for (const Group& g : w.groups) {
      const Instr& in = kernel.code[g.barrier < kWaitsMbarrier ? g.pc - 1 : g.pc];
      if (first == nullptr) {
        first = &g;
        owner = &w;
        at = &in;
      }
      message += fmt::format(" warp {} lanes {:#010x} wait at line {} {};", w.index, g.mask,
                             in.line, describe_wait(w, g));
    }
    if (w.exited != 0)
      message += fmt::format(" warp {} lanes {:#010x} have exited;", w.index, w.exited);
  }
  message.pop_back();
  owner->current = at;
  owner->fail(ErrorKind::kDeadlock, static_cast<unsigned>(std::countr_zero(first->mask)), message);
}

}  // namespace sagejit::emulator
