// ldmatrix and stmatrix: 8x8 matrices of 16-bit elements between shared memory and fragments.
//
// Lane 8*i + r gives the address of row r (16 bytes) of matrix i. In a fragment lane l holds
// elements (l/4, 2*(l%4)) and (l/4, 2*(l%4)+1) of the matrix, or of its transpose with .trans. A
// row counts as read or written by the lane that gives its address.
#include <fmt/format.h>

#include "runtime/device/emulator/semantics/access.h"
#include "runtime/device/emulator/semantics/bind.h"
#include "runtime/device/emulator/semantics/collective.h"

namespace sagejit::emulator {
namespace {

constexpr unsigned kRows8 = 8;
constexpr uint32_t kRowBytes = 16;
enum MatrixFlags : uint32_t { kTrans = 1, kGeneric = 2 };

using Rows = std::array<uint16_t*, 4 * kRows8>;

// Checks the rows of `count` matrices whose addresses are in `base`.
Rows row_pointers(Warp& w, const Instr& in, const Operand& base, unsigned count) {
  Block& b = *w.block;
  const unsigned lanes = count * kRows8;
  const bool load = in.num_dst != 0;
  const uint32_t needed = lanes == kWarpLanes ? kAllLanes : (1u << lanes) - 1;
  if ((w.defined_lanes(base) & needed) != needed)
    w.fail_undefined(in, load ? in.num_dst : 0, load ? in.num_dst + 1u : 1);
  Addresses address;
  compute_addresses(w, base, in.offset, address);
  Rows rows;
  uint32_t offset[kWarpLanes];
  for (unsigned l = 0; l < lanes; ++l) {
    const uint64_t window = (in.aux & kGeneric) != 0 ? kSharedWindow : 0;
    offset[l] = check_shared(w, l, address[l] - window, kRowBytes, kRowBytes);
    const Access access{w.thread(l), in.index, &w.clock, false};
    const Finding f = load ? b.shadow.read(offset[l], kRowBytes, access)
                           : b.shadow.write(offset[l], kRowBytes, access);
    if (f.hazard != Hazard::kNone) report_hazard(w, l, f, load ? "read" : "write");
    rows[l] = reinterpret_cast<uint16_t*>(b.shared.data() + offset[l]);
  }
  count_shared(b.report, needed, offset, kRowBytes);
  return rows;
}

void exec_ldmatrix(Warp& w, const Instr& in) {
  require_whole_warp(w);
  const Rows rows = row_pointers(w, in, in.op[in.num_dst], in.num_dst);
  const bool trans = (in.aux & kTrans) != 0;
  for (unsigned i = 0; i < in.num_dst; ++i) {
    uint32_t* d = w.dst<uint32_t>(in.op[i]);
    uint16_t* const* row = rows.data() + i * kRows8;
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      const unsigned r = l / 4, c = l % 4 * 2;
      const uint32_t low = trans ? row[c][r] : row[r][c];
      const uint32_t high = trans ? row[c + 1][r] : row[r][c + 1];
      d[l] = low | high << 16;
    }
    w.defined[in.op[i].defined] = kAllLanes;
  }
}

void exec_stmatrix(Warp& w, const Instr& in) {
  require_whole_warp(w);
  const unsigned count = in.num_ops - 1u;
  w.require(in, 1, in.num_ops);
  const Rows rows = row_pointers(w, in, in.op[0], count);
  const bool trans = (in.aux & kTrans) != 0;
  for (unsigned i = 0; i < count; ++i) {
    const uint32_t* s = w.src<uint32_t>(in.op[1 + i]);
    uint16_t* const* row = rows.data() + i * kRows8;
    for (unsigned l = 0; l < kWarpLanes; ++l) {
      const unsigned r = l / 4, c = l % 4 * 2;
      (trans ? row[c][r] : row[r][c]) = static_cast<uint16_t>(s[l]);
      (trans ? row[c + 1][r] : row[r][c + 1]) = static_cast<uint16_t>(s[l] >> 16);
    }
  }
}

template <ExecFn kExec>
void bind_matrix(const Match& m, Instr& in) {
  if (m.segments[2] == m.segments[3]) return;
  const bool shared = m.has("shared") || m.has("shared::cta");
  in.aux = (m.has("trans") ? kTrans : 0u) | (shared ? 0u : kGeneric);
  in.exec = kExec;
}

// The shape and the count are also written the other way round.
constexpr Row kRows[] = {
    {"ldmatrix.sync.aligned.m8n8|x1.m8n8|x1.trans?.$shared?.b16", "d:b32*1 a",
     bind_matrix<exec_ldmatrix>},
    {"ldmatrix.sync.aligned.m8n8|x2.m8n8|x2.trans?.$shared?.b16", "d:b32*2 a",
     bind_matrix<exec_ldmatrix>},
    {"ldmatrix.sync.aligned.m8n8|x4.m8n8|x4.trans?.$shared?.b16", "d:b32*4 a",
     bind_matrix<exec_ldmatrix>},
    {"stmatrix.sync.aligned.m8n8|x1.m8n8|x1.trans?.$shared?.b16", "a s:b32*1",
     bind_matrix<exec_stmatrix>},
    {"stmatrix.sync.aligned.m8n8|x2.m8n8|x2.trans?.$shared?.b16", "a s:b32*2",
     bind_matrix<exec_stmatrix>},
    {"stmatrix.sync.aligned.m8n8|x4.m8n8|x4.trans?.$shared?.b16", "a s:b32*4",
     bind_matrix<exec_stmatrix>},
};

}  // namespace

std::span<const Row> matrix_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
