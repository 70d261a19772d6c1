#include "tests/unit/backend/main_loops.h"

#include <algorithm>
#include <map>
#include <regex>

namespace sagejit {
namespace {

using Nodes = std::vector<int>;  // instructions, by number

struct Graph {
  std::vector<std::string> instructions;
  std::vector<Nodes> successors, predecessors;
};

// "@!P0 BRA.U UP1, `(.L_x_3)" -> "BRA"
std::string_view opcode_of(std::string_view instruction) {
  if (instruction[0] == '@') instruction.remove_prefix(instruction.find(' ') + 1);
  return instruction.substr(0, instruction.find_first_of(" .;"));
}

bool is_tensor_core(std::string_view instruction) {
  return opcode_of(instruction).ends_with("MMA");
}

// Where a branch goes to, `(.L_x_3); "" for other instructions: calls return, and what else names a
// label (BSSY, say) goes on behind it.
std::string target_of(const std::string& instruction) {
  if (opcode_of(instruction) != "BRA") return "";
  const size_t at = instruction.find("`(");
  return instruction.substr(at + 2, instruction.find(')', at) - at - 2);
}

// A condition is a predicate before the instruction or an operand besides its target.
bool goes_on(const std::string& instruction) {
  if (instruction[0] == '@') return true;
  const std::string_view opcode = opcode_of(instruction);
  if (opcode == "BRA") return instruction.find(',') != std::string::npos;
  return opcode != "EXIT" && opcode != "RET";
}

Graph read(std::string_view sass) {
  static const std::regex kLabel(R"(^\s*([.\w$]+):\s*$)");
  static const std::regex kInstruction(R"(^\s*/\*[0-9a-f]+\*/\s+(.*\S)\s*;\s*(/\*.*)?$)");
  Graph graph;
  std::map<std::string, int> labels;
  for (size_t begin = 0; begin < sass.size();) {
    const size_t end = std::min(sass.find('\n', begin), sass.size());
    const std::string line(sass.substr(begin, end - begin));
    begin = end + 1;
    std::smatch match;
    if (std::regex_match(line, match, kLabel)) {
      labels[match[1]] = static_cast<int>(graph.instructions.size());
    } else if (std::regex_match(line, match, kInstruction)) {
      graph.instructions.push_back(match[1]);
    }
  }
  const int size = static_cast<int>(graph.instructions.size());
  graph.successors.resize(size);
  graph.predecessors.resize(size);
  const auto connect = [&](int from, int to) {
    if (to >= size) return;
    graph.successors[from].push_back(to);
    graph.predecessors[to].push_back(from);
  };
  for (int i = 0; i < size; ++i) {
    if (goes_on(graph.instructions[i])) connect(i, i + 1);
    if (const std::string target = target_of(graph.instructions[i]); !target.empty()) {
      connect(i, labels.at(target));
    }
  }
  return graph;
}

// What can be reached from `start` along `edges` in the part that is `open`, which it leaves
// closed; each after what was reached by way of it.
Nodes reach(int start, const std::vector<Nodes>& edges, std::vector<bool>& open) {
  Nodes done;
  std::vector<std::pair<int, size_t>> path = {{start, 0}};  // and the next edge to follow
  open[start] = false;
  while (!path.empty()) {
    const auto [node, edge] = path.back();
    if (edge == edges[node].size()) {
      done.push_back(node);
      path.pop_back();
      continue;
    }
    ++path.back().second;
    const int next = edges[node][edge];
    if (!open[next]) continue;
    open[next] = false;
    path.emplace_back(next, 0);
  }
  return done;
}

std::vector<bool> set_of(const Graph& graph, const Nodes& part) {
  std::vector<bool> set(graph.instructions.size());
  for (const int node : part) set[node] = true;
  return set;
}

// Strongly connected components (Kosaraju).
std::vector<Nodes> components(const Graph& graph, const Nodes& part) {
  std::vector<bool> open = set_of(graph, part);
  Nodes order;
  for (const int node : part) {
    if (!open[node]) continue;
    const Nodes done = reach(node, graph.successors, open);
    order.insert(order.end(), done.begin(), done.end());
  }
  open = set_of(graph, part);
  std::vector<Nodes> result;
  for (auto node = order.rbegin(); node != order.rend(); ++node) {
    if (open[*node]) result.push_back(reach(*node, graph.predecessors, open));
  }
  return result;
}

void collect(const Graph& graph, const Nodes& part, std::vector<Nodes>& loops) {
  for (Nodes& component : components(graph, part)) {
    if (component.size() == 1) continue;
    std::sort(component.begin(), component.end());
    const std::vector<bool> inside = set_of(graph, component);
    const auto entry = std::find_if(component.begin(), component.end(), [&](int node) {
      const Nodes& before = graph.predecessors[node];
      return std::any_of(before.begin(), before.end(), [&](int other) { return !inside[other]; });
    });
    Nodes inner = component;
    inner.erase(inner.begin() + (entry == component.end() ? 0 : entry - component.begin()));
    const size_t num_loops = loops.size();
    collect(graph, inner, loops);
    const auto is_product = [&](int node) { return is_tensor_core(graph.instructions[node]); };
    if (loops.size() == num_loops && std::any_of(component.begin(), component.end(), is_product)) {
      loops.push_back(std::move(component));
    }
  }
}

}  // namespace

std::vector<std::vector<std::string>> main_loops(std::string_view sass) {
  const Graph graph = read(sass);
  Nodes all;
  for (int i = 0; i < static_cast<int>(graph.instructions.size()); ++i) all.push_back(i);
  std::vector<Nodes> loops;
  collect(graph, all, loops);
  std::sort(loops.begin(), loops.end());
  std::vector<std::vector<std::string>> result;
  for (const Nodes& loop : loops) {
    result.emplace_back();
    for (const int node : loop) result.back().push_back(graph.instructions[node]);
  }
  return result;
}

}  // namespace sagejit
