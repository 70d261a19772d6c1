// Matching opcodes against the patterns of the instruction table.
#include <fmt/format.h>

#include <string>
#include <unordered_map>

#include "runtime/device/emulator/decode/table.h"

namespace sagejit::emulator {
namespace {

struct Set {
  std::string_view name;
  std::string_view alternatives;
};

constexpr Set kSets[] = {
    {"int", "u16|s16|u32|s32|u64|s64"},
    {"int32", "u32|s32"},
    {"int3264", "u32|s32|u64|s64"},
    {"bits", "b16|b32|b64"},
    {"half", "f16|f16x2|bf16|bf16x2"},
    {"round", "rn|rz|rm|rp"},
    {"cmp", "eq|ne|lt|le|gt|ge|lo|ls|hi|hs|equ|neu|ltu|leu|gtu|geu|num|nan"},
    {"any", "b8|b16|b32|b64|u8|u16|u32|u64|s8|s16|s32|s64|f16|f16x2|bf16|bf16x2|f32|f64"},
    {"scalar", "u8|u16|u32|u64|s8|s16|s32|s64|f16|bf16|f32|f64"},
    {"scope", "cta|cluster|gpu|sys"},
    {"shared", "shared|shared::cta"},
    {"space", "const|global|local|param|param::entry|shared|shared::cta"},
    {"cache", "ca|cg|cs|lu|cv|wb|wt"},
    {"l1", "L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate"},
    {"l2", "L2::64B|L2::128B|L2::256B"},
    {"sharedany", "shared|shared::cta|shared::cluster"},  // a cluster is one block here
    {"wgmma_k16",
     "m64n8k16|m64n16k16|m64n24k16|m64n32k16|m64n40k16|m64n48k16|m64n56k16|m64n64k16|m64n72k16|"
     "m64n80k16|m64n88k16|m64n96k16|m64n104k16|m64n112k16|m64n120k16|m64n128k16|m64n136k16|"
     "m64n144k16|m64n152k16|m64n160k16|m64n168k16|m64n176k16|m64n184k16|m64n192k16|m64n200k16|"
     "m64n208k16|m64n216k16|m64n224k16|m64n232k16|m64n240k16|m64n248k16|m64n256k16"},
    {"wgmma_k32",
     "m64n8k32|m64n16k32|m64n24k32|m64n32k32|m64n40k32|m64n48k32|m64n56k32|m64n64k32|m64n72k32|"
     "m64n80k32|m64n88k32|m64n96k32|m64n104k32|m64n112k32|m64n120k32|m64n128k32|m64n136k32|"
     "m64n144k32|m64n152k32|m64n160k32|m64n168k32|m64n176k32|m64n184k32|m64n192k32|m64n200k32|"
     "m64n208k32|m64n216k32|m64n224k32|m64n232k32|m64n240k32|m64n248k32|m64n256k32"},
    {"wgmma_int",
     "m64n8k32|m64n16k32|m64n24k32|m64n32k32|m64n48k32|m64n64k32|m64n80k32|m64n96k32|m64n112k32|"
     "m64n128k32|m64n144k32|m64n160k32|m64n176k32|m64n192k32|m64n208k32|m64n224k32|m64n240k32|"
     "m64n256k32"},
};

struct Segment {
  std::vector<std::string_view> alternatives;
  bool optional = false;

  bool accepts(std::string_view s) const {
    for (std::string_view a : alternatives) {
      if (a == s) return true;
    }
    return false;
  }
};

struct Pattern {
  const Row* row;
  std::vector<Segment> segments;
};

std::vector<std::string_view> split(std::string_view s, char separator) {
  std::vector<std::string_view> out;
  for (size_t begin = 0; begin <= s.size();) {
    const size_t end = std::min(s.find(separator, begin), s.size());
    out.push_back(s.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

Segment compile_segment(std::string_view text) {
  Segment segment;
  segment.optional = text.ends_with('?');
  if (segment.optional) text.remove_suffix(1);
  for (std::string_view part : split(text, '|')) {
    if (!part.starts_with('$')) {
      segment.alternatives.push_back(part);
      continue;
    }
    for (const Set& set : kSets) {
      if (set.name != part.substr(1)) continue;
      for (std::string_view a : split(set.alternatives, '|')) segment.alternatives.push_back(a);
    }
  }
  return segment;
}

using Index = std::unordered_map<std::string_view, std::vector<Pattern>>;

Index build_index() {
  Index index;
  for (const auto rows : {integer_rows(), bit_rows(), float_rows(), half_rows(), compare_rows(),
                          convert_rows(), move_rows(), memory_rows(), atomic_rows(), async_rows(),
                          matrix_rows(), mma_rows(), wgmma_rows(), mbarrier_rows(), bulk_rows(),
                          tensor_rows(), setmaxnreg_rows(), collective_rows(), control_rows()}) {
    for (const Row& row : rows) {
      const auto parts = split(row.pattern, '.');
      Pattern pattern{&row, {}};
      for (size_t i = 1; i < parts.size(); ++i)
        pattern.segments.push_back(compile_segment(parts[i]));
      index[parts[0]].push_back(std::move(pattern));
    }
  }
  return index;
}

const Index& index() {
  static const Index kIndex = build_index();
  return kIndex;
}

// N of "m64nNkK".
unsigned parse_n(std::string_view shape) {
  unsigned n = 0;
  for (char c : shape.substr(4)) {
    if (c < '0' || c > '9') break;
    n = n * 10 + static_cast<unsigned>(c - '0');
  }
  return n;
}

// Matches words[w..] against pattern[p..], preferring to take optional segments.
bool match_from(const Pattern& pattern, size_t p, const std::vector<std::string_view>& words,
                size_t w, std::vector<std::string_view>& out) {
  if (p == pattern.segments.size()) return w == words.size();
  const Segment& segment = pattern.segments[p];
  if (w < words.size() && segment.accepts(words[w])) {
    out[p] = words[w];
    if (match_from(pattern, p + 1, words, w + 1, out)) return true;
  }
  out[p] = {};
  return segment.optional && match_from(pattern, p + 1, words, w, out);
}

}  // namespace

const Row* find_row(std::string_view opcode, Match& match) {
  const auto words = split(opcode, '.');
  const auto found = index().find(words[0]);
  if (found == index().end()) return nullptr;
  for (const Pattern& pattern : found->second) {
    match.segments.assign(pattern.segments.size(), {});
    if (!match_from(pattern, 0, words, 1, match.segments)) continue;
    match.types.clear();
    match.vector = 1;
    for (std::string_view s : match.segments) {
      if (const auto type = find_type(s)) match.types.push_back(*type);
      if (s.starts_with("m64n")) match.mma_n = parse_n(s);
      if (s == "v2" || s == "v4" || s == "v8") match.vector = static_cast<unsigned>(s[1] - '0');
    }
    return pattern.row;
  }
  return nullptr;
}

std::vector<std::string_view> patterns_of(std::string_view name) {
  std::vector<std::string_view> out;
  if (const auto found = index().find(name); found != index().end()) {
    for (const Pattern& p : found->second) out.push_back(p.row->pattern);
  }
  return out;
}

}  // namespace sagejit::emulator
