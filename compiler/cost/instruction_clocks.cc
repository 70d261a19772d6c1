#include "compiler/cost/instruction_clocks.h"

#include <limits>

#include "compiler/support/error.h"

namespace sagejit::cost {
namespace {

constexpr double kWarpLanes = 32;
constexpr int kWarpgroupWarps = 4, kWarpgroupRows = 64;

struct InstructionRow {
  std::string_view prefix;
  InstructionKind kind;
  int issues;
  int lane_bytes;
};

constexpr InstructionRow kRows[] = {
#define INSTRUCTION(prefix, kind, issues, lane_bytes) \
  {prefix, InstructionKind::kind, issues, lane_bytes},
#include "compiler/cost/instruction_units.def"
#undef INSTRUCTION
};

const InstructionRow& row_of(std::string_view instruction) {
  const InstructionRow* longest = nullptr;
  for (const InstructionRow& row : kRows) {
    const bool fits = instruction.starts_with(row.prefix);
    if (fits && (!longest || row.prefix.size() > longest->prefix.size())) longest = &row;
  }
  if (!longest) {
    fail(ErrorKind::kInternal, "compiler/cost/instruction_units.def has no row for '{}'",
         instruction);
  }
  return *longest;
}

double& at(UnitClocks& clocks, Unit unit) {
  return clocks[static_cast<size_t>(unit)];
}

void add_issues(UnitClocks& clocks, double issues) {
  at(clocks, Unit::kIssue) += issues * kWarpLanes / kIssuePerClock;
}

void add_row(UnitClocks& clocks, const InstructionRow& row, const Throughput& t) {
  // Of a chain of maxima every instruction takes all inputs but the one before it.
  const double issues =
      row.kind == InstructionKind::kIntegerMax ? 1.0 / (t.max_inputs - 1) : row.issues;
  const double results = issues * kWarpLanes;
  add_issues(clocks, issues);
  at(clocks, Unit::kShared) += row.lane_bytes * kWarpLanes / kSmemBytesPerClock;
  switch (row.kind) {
    case InstructionKind::kSpecial:
      at(clocks, Unit::kSpecial) += results / t.special;
      break;
    case InstructionKind::kFp32:
      at(clocks, Unit::kFp32) += results / t.fp32;
      break;
    case InstructionKind::kAlu:
    case InstructionKind::kIntegerMax:
      at(clocks, Unit::kAlu) += results / t.alu;
      break;
    case InstructionKind::kIntToFloat:
      if (t.int_to_float_is_alu) {
        at(clocks, Unit::kAlu) += results / t.alu;
      } else {
        at(clocks, Unit::kSpecial) += results / t.special;
      }
      break;
    case InstructionKind::kShared:
    case InstructionKind::kNone:
      break;
  }
}

// The statements of a PTX template, without what is no instruction: braces, declarations, labels
// and the predicates that guard an instruction.
template <typename Visit>
void for_each_instruction(std::string_view ptx, Visit visit) {
  while (!ptx.empty()) {
    const size_t end = std::min(ptx.find(';'), ptx.size());
    std::string_view statement = ptx.substr(0, end);
    ptx.remove_prefix(std::min(end + 1, ptx.size()));
    const auto skip = [&](size_t count) {
      statement.remove_prefix(std::min(count, statement.size()));
    };
    for (;;) {
      skip(std::min(statement.find_first_not_of("{} "), statement.size()));
      if (statement.empty()) break;
      const size_t word = std::min(statement.find(' '), statement.size());
      if (statement.front() != '@' && statement[word - 1] != ':') break;
      skip(word);
    }
    if (!statement.empty() && !statement.starts_with(".reg")) visit(statement);
  }
}

double product_clocks(double operations, DType operand, DType sum, const Throughput& t) {
  const int rate = tensor_throughput(t, operand, sum);
  return rate == 0 ? std::numeric_limits<double>::infinity() : operations / rate;
}

UnitClocks mma_clocks(const ir::MmaInfo& mma, const Throughput& t) {
  UnitClocks clocks{};
  add_issues(clocks, 1);
  at(clocks, Unit::kTensor) = product_clocks(2.0 * mma.m * mma.n * mma.k, mma.a, mma.c, t);
  return clocks;
}

// A warp's quarter of its warpgroup's product. B, and A where it is there, come from shared memory,
// once for the four warps.
UnitClocks wgmma_clocks(const ir::WgmmaInfo& wgmma, const OpCount& count, const Throughput& t) {
  UnitClocks clocks{};
  add_issues(clocks, 1);
  const double rows = count.columns + (count.a_in_registers ? 0 : kWarpgroupRows);
  const double bytes = rows * wgmma.k * bits_of(wgmma.b) / 8;
  at(clocks, Unit::kShared) = bytes / kSmemBytesPerClock / kWarpgroupWarps;
  at(clocks, Unit::kTensor) =
      product_clocks(2.0 * kWarpgroupRows * count.columns * wgmma.k, wgmma.a, wgmma.c, t) /
      kWarpgroupWarps;
  return clocks;
}

UnitClocks clocks_of_one(const OpCount& count, const Throughput& t) {
  switch (count.op) {
#define MMA(id, name, m, n, k, a, b, c, ptx_version, ptx) \
  case ir::Op::id:                                        \
    return mma_clocks(ir::mma_info(count.op), t);
#include "compiler/ir/mma.def"
#undef MMA
#define WGMMA(id, name, k, a, b, c, ptx_version, types, modifiers_ss, modifiers_rs) \
  case ir::Op::id:                                                                  \
    return wgmma_clocks(*ir::find_wgmma(count.op), count, t);
#include "compiler/ir/wgmma.def"
#undef WGMMA
    default:
      break;
  }
  UnitClocks clocks{};
  const std::string_view ptx = ir::info(count.op).ptx;
  // What is no row of ops.def: a constant put in a variable, a wait for products, a loop's or
  // branch's jump.
  if (ptx.empty()) add_issues(clocks, 1);
  for_each_instruction(ptx, [&](std::string_view one) { add_row(clocks, row_of(one), t); });
  return clocks;
}

}  // namespace

std::string_view name_of(Unit unit) {
  constexpr std::string_view kNames[kNumUnits] = {
      "tensor cores", "special functions", "fp32", "integer", "shared memory", "issue slots"};
  return kNames[static_cast<size_t>(unit)];
}

UnitClocks clocks_of(const OpCount& count, const Throughput& throughput) {
  UnitClocks clocks = clocks_of_one(count, throughput);
  for (double& x : clocks) x *= count.count;
  return clocks;
}

}  // namespace sagejit::cost
