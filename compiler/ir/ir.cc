#include "compiler/ir/ir.h"

#include <algorithm>
#include <array>

#include "compiler/ir/fragment.h"
#include "compiler/support/error.h"

namespace sagejit::ir {
namespace {

constexpr MmaInfo kMmas[] = {
#define MMA(id, name, m, n, k, a, b, c, ptx_version, ptx) \
  {Op::id, m, n, k, DType::a, DType::b, DType::c},
#include "compiler/ir/mma.def"
#undef MMA
};

constexpr WgmmaInfo kWgmmas[] = {
#define WGMMA(id, name, k, a, b, c, ptx_version, types, modifiers_ss, modifiers_rs) \
  {Op::id, k, DType::a, DType::b, DType::c, types, modifiers_ss, modifiers_rs},
#include "compiler/ir/wgmma.def"
#undef WGMMA
};

// PTX ISA, "mma": 8-bit floats came with sm_89, scale factors with sm_120a, the other types of the
// table with sm_80.
constexpr int min_sm(const MmaInfo& mma) {
  return is_fp8(mma.a) ? 89 : has_scale_factors(mma) ? 120 : 80;
}

// An mma's operand letters and PTX template follow from its shape: D, A, B, C in 32-bit registers,
// and for each of A and B, where it has scale factors, their register and the selector of threads.
struct MmaRow {
  std::string results, operands, ptx;

  MmaRow(const MmaInfo& mma, std::string_view instruction) {
    const char c = mma.c == DType::kF32 ? 'f' : 'r';
    const int counts[] = {c_registers(mma), a_registers(mma), b_registers(mma), c_registers(mma)};
    results.assign(counts[0], c);
    operands = std::string(counts[1] + counts[2], 'r') + std::string(counts[3], c);
    ptx = std::string(instruction);
    int number = 0;
    for (int group = 0; group < 4; ++group) {
      ptx += group ? ", {" : " {";
      for (int i = 0; i < counts[group]; ++i) ptx += fmt::format("{}${}", i ? ", " : "", number++);
      ptx += "}";
    }
    for (int scale = 0; scale < (has_scale_factors(mma) ? 2 : 0); ++scale) {
      operands += "ri";
      ptx += fmt::format(", ${}, {{0, ${}}}", number, number + 1);
      number += 2;
    }
    ptx += ";";
  }
};

struct Table {
  std::array<OpInfo, static_cast<size_t>(Op::kCount)> rows{};
  std::vector<MmaRow> mma_rows;

  Table() {
    using enum Effect;
#define OP(id, name, results, operands, effect, min_sm, cuda, ptx) \
  rows[static_cast<size_t>(Op::id)] = {name, results, operands, effect, min_sm, cuda, ptx, 0};
#include "compiler/ir/ops.def"
#undef OP
    mma_rows.reserve(std::size(kMmas));
#define MMA(id, name_, m, n, k, a, b, c, ptx_version_, ptx_)     \
  mma_rows.emplace_back(mma_info(Op::id), ptx_);                 \
  rows[static_cast<size_t>(Op::id)] = {name_,                    \
                                       mma_rows.back().results,  \
                                       mma_rows.back().operands, \
                                       kPure,                    \
                                       min_sm(mma_info(Op::id)), \
                                       "",                       \
                                       mma_rows.back().ptx,      \
                                       ptx_version_};
#include "compiler/ir/mma.def"
#undef MMA
    const auto structural = [&](Op op, std::string_view name) {
      rows[static_cast<size_t>(op)].name = name;
    };
    structural(Op::kParam, "param");
    structural(Op::kSmem, "smem");
    structural(Op::kVar, "var");
    structural(Op::kGet, "get");
    structural(Op::kSet, "set");
    structural(Op::kFor, "for");
    structural(Op::kIf, "if");
    structural(Op::kIfUniform, "if.uniform");
    structural(Op::kWhile, "while");
    structural(Op::kComment, "#");
    structural(Op::kTie, "tie");
    structural(Op::kWgmmaWait, "wgmma.wait");
#define WGMMA(id, name, k, a, b, c, ptx_version_, types, modifiers_ss, modifiers_rs) \
  structural(Op::id, name);                                                          \
  rows[static_cast<size_t>(Op::id)].ptx_version = ptx_version_;
#include "compiler/ir/wgmma.def"
#undef WGMMA
  }
};

}  // namespace

const OpInfo& info(Op op) {
  static const Table table;
  return table.rows[static_cast<size_t>(op)];
}

const MmaInfo* find_mma(Op op) {
  const auto* it = std::find_if(std::begin(kMmas), std::end(kMmas),
                                [&](const MmaInfo& mma) { return mma.op == op; });
  return it == std::end(kMmas) ? nullptr : it;
}

const MmaInfo& mma_info(Op op) {
  const MmaInfo* mma = find_mma(op);
  if (!mma) fail(ErrorKind::kInternal, "operation is not a tensor-core product");
  return *mma;
}

const WgmmaInfo* find_wgmma(Op op) {
  const auto* it = std::find_if(std::begin(kWgmmas), std::end(kWgmmas),
                                [&](const WgmmaInfo& wgmma) { return wgmma.op == op; });
  return it == std::end(kWgmmas) ? nullptr : it;
}

namespace {

template <typename Row, size_t kSize>
Op product_of(const Row (&rows)[kSize], DType a, DType b, DType c) {
  for (const Row& row : rows) {
    if (row.a == a && row.b == b && row.c == c) return row.op;
  }
  fail(ErrorKind::kInternal, "there is no product of {} and {} into {}", name_of(a), name_of(b),
       name_of(c));
}

}  // namespace

Op mma_of(DType a, DType b, DType c) {
  return product_of(kMmas, a, b, c);
}

Op wgmma_of(DType a, DType b, DType c) {
  return product_of(kWgmmas, a, b, c);
}

int num_accumulators(const Inst& inst) {
  return static_cast<int>(
      std::count_if(inst.operands.begin(), inst.operands.end(),
                    [](Value value) { return value.kind == Value::Kind::kVariable; }));
}

int Function::smem_bytes() const {
  int end = 0;
  for (const SmemObject& object : smem) end = std::max(end, object.offset_bytes + object.bytes);
  return end;
}

}  // namespace sagejit::ir
