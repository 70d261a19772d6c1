// Places registers in the bank: liveness per thread, then linear scan over the order of execution.
//
// A lane only ever sees its own path through the program, and a shared place is written lane by
// lane, so liveness along paths is enough although lanes diverge. A register that may be read
// before it is written is live from the start, so nobody else uses its place before, and it still
// reads as never written.
#include <algorithm>
#include <bit>
#include <map>

#include "runtime/device/emulator/decode/decode.h"

namespace sagejit::emulator {
namespace {

// Predicates are one word, but keep vectors of other registers on 32-byte boundaries.
uint32_t size_of(const VirtualRegister& r) {
  return r.bytes == 0 ? 32 : r.bytes * kWarpLanes;
}

using Set = std::vector<uint64_t>;
void insert(Set& s, uint32_t i) {
  s[i / 64] |= uint64_t{1} << (i % 64);
}
void remove(Set& s, uint32_t i) {
  s[i / 64] &= ~(uint64_t{1} << (i % 64));
}

struct Interval {
  uint32_t first = ~0u, last = 0;  // positions, inclusive
  void include(uint32_t position) {
    first = std::min(first, position);
    last = std::max(last, position);
  }
};

class Allocator {
 public:
  Allocator(Kernel& kernel, const std::vector<VirtualRegister>& registers, const Cfg& cfg)
      : kernel_(kernel), registers_(registers), cfg_(cfg), words_((registers.size() + 63) / 64) {}

  void run() {
    solve_liveness();
    find_intervals();
    scan();
    rewrite();
  }

 private:
  // Calls f(register) for the operands [first, end) that are unpinned registers.
  template <class F>
  void each(const Instr& in, unsigned first, unsigned end, F&& f) const {
    for (unsigned i = first; i < end; ++i) {
      if (in.op[i].bank != Operand::kRegisters) continue;
      const uint32_t r = in.op[i].defined - 1;
      if (!registers_[r].pinned) f(r);
    }
  }

  void step_backwards(const Instr& in, Set& live) const {
    if (!in.guarded) each(in, 0, in.num_dst, [&](uint32_t r) { remove(live, r); });
    each(in, in.num_dst, in.num_ops, [&](uint32_t r) { insert(live, r); });
    if (in.guarded) insert(live, in.guard.defined - 1);
  }

  void solve_liveness() {
    const size_t blocks = cfg_.starts.size();
    live_in_.assign(blocks, Set(words_));
    live_out_.assign(blocks, Set(words_));
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t b = blocks; b-- > 0;) {
        Set out(words_);
        for (uint32_t s : cfg_.successors[b]) {
          for (size_t w = 0; w < words_; ++w) out[w] |= live_in_[s][w];
        }
        Set in = out;
        for (uint32_t i = cfg_.end(b, kernel_); i-- > cfg_.starts[b];)
          step_backwards(kernel_.code[i], in);
        changed = changed || in != live_in_[b] || out != live_out_[b];
        live_in_[b] = std::move(in);
        live_out_[b] = std::move(out);
      }
    }
  }

  void include_all(const Set& set, uint32_t position) {
    for (size_t w = 0; w < words_; ++w) {
      for (uint64_t bits = set[w]; bits != 0; bits &= bits - 1) {
        intervals_[w * 64 + static_cast<size_t>(std::countr_zero(bits))].include(position);
      }
    }
  }

  void find_intervals() {
    intervals_.resize(registers_.size());
    for (size_t b = 0; b < cfg_.starts.size(); ++b) {
      include_all(live_in_[b], kernel_.code[cfg_.starts[b]].position);
      include_all(live_out_[b], kernel_.code[cfg_.end(b, kernel_) - 1].position);
    }
    for (const Instr& in : kernel_.code) {
      each(in, 0, in.num_ops, [&](uint32_t r) { intervals_[r].include(in.position); });
      if (in.guarded) intervals_[in.guard.defined - 1].include(in.position);
    }
    // Undefined at the entry: from the start of everything.
    for (size_t w = 0; w < words_; ++w) {
      for (uint64_t bits = live_in_[0][w]; bits != 0; bits &= bits - 1) {
        intervals_[w * 64 + static_cast<size_t>(std::countr_zero(bits))].first = 0;
      }
    }
    for (size_t r = 0; r < registers_.size(); ++r) {
      if (registers_[r].exclusive) intervals_[r] = {0, static_cast<uint32_t>(kernel_.code.size())};
    }
  }

  struct Place {
    uint32_t offset = 0, defined = 0;
  };

  // A place is free again behind its register's last position, so no result shares one with a
  // source of the same instruction.
  void scan() {
    places_.resize(registers_.size());
    for (size_t r = 0; r < registers_.size(); ++r) {
      if (registers_[r].pinned) places_[r] = {take_bytes(size_of(registers_[r])), 0};
    }
    std::vector<uint32_t> order;
    for (uint32_t r = 0; r < registers_.size(); ++r) {
      if (!registers_[r].pinned && intervals_[r].first != ~0u) order.push_back(r);
    }
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return intervals_[a].first < intervals_[b].first;
    });
    std::map<uint32_t, std::vector<Place>> free;  // by size
    std::multimap<uint32_t, uint32_t> ending;     // last position -> register
    for (uint32_t r : order) {
      while (!ending.empty() && ending.begin()->first < intervals_[r].first) {
        const uint32_t done = ending.begin()->second;
        free[size_of(registers_[done])].push_back(places_[done]);
        ending.erase(ending.begin());
      }
      auto& candidates = free[size_of(registers_[r])];
      if (candidates.empty()) {
        places_[r] = {take_bytes(size_of(registers_[r])), kernel_.num_defined++};
      } else {
        places_[r] = candidates.back();
        candidates.pop_back();
      }
      ending.emplace(intervals_[r].last, r);
    }
  }

  uint32_t take_bytes(uint32_t bytes) {
    const uint32_t offset = kernel_.register_bytes;
    kernel_.register_bytes += bytes;
    return offset;
  }

  void rewrite() {
    const auto place = [&](Operand& op) {
      if (op.bank != Operand::kRegisters) return;
      const Place& p = places_[op.defined - 1];
      op.offset = p.offset;
      op.defined = p.defined;
    };
    for (Operand& op : kernel_.operands) place(op);
    for (Instr& in : kernel_.code) {
      if (in.guarded) place(in.guard);
    }
  }

  Kernel& kernel_;
  const std::vector<VirtualRegister>& registers_;
  const Cfg& cfg_;
  const size_t words_;
  std::vector<Set> live_in_, live_out_;  // per block
  std::vector<Interval> intervals_;      // per register
  std::vector<Place> places_;            // per register
};

}  // namespace

void assign_registers(Kernel& kernel, const std::vector<VirtualRegister>& registers,
                      const Cfg& cfg) {
  Allocator(kernel, registers, cfg).run();
}

}  // namespace sagejit::emulator
