// Basic blocks and the order in which diverged lanes run.
//
// Lanes that took different branches are run lowest `position` first. Positions follow a
// topological order of the blocks (back edges apart) in which every exit of a loop comes after the
// whole loop, so lanes that leave early wait there and all rejoin at the first block that they can
// share ("thread frontiers", Diamos et al., MICRO 2011). Early returns and unstructured jumps need
// no special case.
#include <algorithm>
#include <queue>

#include "runtime/device/emulator/decode/decode.h"

namespace sagejit::emulator {
namespace {

struct Edge {
  uint32_t from, to;
};

class Ordering {
 public:
  explicit Ordering(Kernel& kernel) : kernel_(kernel) {}

  Cfg run() {
    find_blocks();
    connect();
    find_back_edges();
    add_loop_exits();
    sort();
    return {std::move(starts_), std::move(successors_)};
  }

 private:
  void mark(uint32_t instr) {
    if (instr < kernel_.code.size()) kernel_.code[instr].block_start = true;
  }

  void find_blocks() {
    mark(0);
    for (const Instr& in : kernel_.code) {
      if (in.control == Control::kNone || in.control == Control::kSync) continue;
      mark(in.index + 1);
      if (in.control == Control::kBranch) mark(in.target);
      if (in.control == Control::kIndirect) {
        for (uint32_t t : kernel_.branch_tables[in.target]) mark(t);
      }
    }
    block_of_.resize(kernel_.code.size());
    for (const Instr& in : kernel_.code) {
      if (in.block_start) starts_.push_back(in.index);
      block_of_[in.index] = static_cast<uint32_t>(starts_.size() - 1);
    }
    successors_.resize(starts_.size());
    predecessors_.resize(starts_.size());
    back_.resize(starts_.size());
  }

  void connect() {
    for (uint32_t b = 0; b < starts_.size(); ++b) {
      const uint32_t end =
          b + 1 < starts_.size() ? starts_[b + 1] : static_cast<uint32_t>(kernel_.code.size());
      const Instr& last = kernel_.code[end - 1];
      auto& out = successors_[b];
      if (last.control == Control::kBranch) out.push_back(block_of_[last.target]);
      if (last.control == Control::kIndirect) {
        for (uint32_t t : kernel_.branch_tables[last.target]) out.push_back(block_of_[t]);
      }
      const bool leaves = last.control == Control::kBranch || last.control == Control::kIndirect ||
                          last.control == Control::kExit;
      if ((!leaves || last.guarded) && end < kernel_.code.size()) out.push_back(b + 1);
      for (uint32_t s : out) predecessors_[s].push_back(b);
    }
  }

  // Depth-first search without recursion: an edge to a block still on the path is a back edge.
  void find_back_edges() {
    enum : uint8_t { kNew, kOnPath, kDone };
    std::vector<uint8_t> state(starts_.size(), kNew);
    std::vector<std::pair<uint32_t, size_t>> path;
    for (uint32_t root = 0; root < starts_.size(); ++root) {
      if (state[root] != kNew) continue;
      path.push_back({root, 0});
      state[root] = kOnPath;
      while (!path.empty()) {
        auto& [b, next] = path.back();
        if (next == successors_[b].size()) {
          state[b] = kDone;
          path.pop_back();
          continue;
        }
        const uint32_t s = successors_[b][next++];
        if (state[s] == kOnPath) {
          back_[b].push_back(s);
          back_edges_.push_back({b, s});
        } else if (state[s] == kNew) {
          state[s] = kOnPath;
          path.push_back({s, 0});
        }
      }
    }
  }

  bool is_back(uint32_t from, uint32_t to) const {
    return std::find(back_[from].begin(), back_[from].end(), to) != back_[from].end();
  }

  std::vector<bool> loop_members(const Edge& back) const {
    std::vector<bool> in(starts_.size(), false);
    in[back.to] = true;
    std::vector<uint32_t> todo;
    if (!in[back.from]) todo.push_back(back.from);
    in[back.from] = true;
    while (!todo.empty()) {
      const uint32_t b = todo.back();
      todo.pop_back();
      for (uint32_t p : predecessors_[b]) {
        if (in[p]) continue;
        in[p] = true;
        todo.push_back(p);
      }
    }
    return in;
  }

  // latch -> exit target, for each loop. The exit of an inner loop may continue an outer one.
  void add_loop_exits() {
    for (const Edge& back : back_edges_) {
      const std::vector<bool> in = loop_members(back);
      for (uint32_t b = 0; b < starts_.size(); ++b) {
        if (!in[b]) continue;
        for (uint32_t s : successors_[b]) {
          if (!in[s]) extra_.push_back({back.from, s});
        }
      }
    }
  }

  void sort() {
    std::vector<std::vector<uint32_t>> out(starts_.size());
    std::vector<uint32_t> waiting(starts_.size(), 0);
    const auto add = [&](uint32_t from, uint32_t to) {
      out[from].push_back(to);
      ++waiting[to];
    };
    for (uint32_t b = 0; b < starts_.size(); ++b) {
      for (uint32_t s : successors_[b]) {
        if (!is_back(b, s)) add(b, s);
      }
    }
    for (const Edge& e : extra_) add(e.from, e.to);
    std::priority_queue<uint32_t, std::vector<uint32_t>, std::greater<>> ready;
    for (uint32_t b = 0; b < starts_.size(); ++b) {
      if (waiting[b] == 0) ready.push(b);
    }
    std::vector<bool> placed(starts_.size(), false);
    uint32_t position = 0;
    const auto place = [&](uint32_t b) {
      placed[b] = true;
      const uint32_t end =
          b + 1 < starts_.size() ? starts_[b + 1] : static_cast<uint32_t>(kernel_.code.size());
      for (uint32_t i = starts_[b]; i < end; ++i) kernel_.code[i].position = position++;
      for (uint32_t s : out[b]) {
        if (--waiting[s] == 0 && !placed[s]) ready.push(s);
      }
    };
    for (uint32_t scan = 0; scan < starts_.size();) {
      if (!ready.empty()) {
        const uint32_t b = ready.top();
        ready.pop();
        if (!placed[b]) place(b);
      } else if (!placed[scan]) {
        place(scan);  // irreducible control flow: fall back to the order of the text
      } else {
        ++scan;
      }
    }
  }

  Kernel& kernel_;
  std::vector<uint32_t> starts_, block_of_;
  std::vector<std::vector<uint32_t>> successors_, predecessors_, back_;
  std::vector<Edge> back_edges_, extra_;
};

}  // namespace

Cfg order_blocks(Kernel& kernel) {
  return Ordering(kernel).run();
}

}  // namespace sagejit::emulator
