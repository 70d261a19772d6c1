// Tensor copies: boxes of a tensor map between global and shared memory.
//
// Rows of a box (dimension 0) lie one behind the other in shared memory; a swizzle exchanges their
// 16-byte chunks: address bits 4.. are exclusive-ored with bits 7.. as far as its width says.
#include <fmt/format.h>

#include <algorithm>

#include "runtime/device/emulator/semantics/access.h"
#include "runtime/device/emulator/semantics/barrier.h"
#include "runtime/device/emulator/semantics/bind.h"
#include "runtime/device/emulator/tensor_map.h"

namespace sagejit::emulator {
namespace {

constexpr uint32_t kBoxAlign = 128;  // of a box in shared memory
constexpr uint32_t kChunk = 16;

TensorMap load_map(Warp& w, unsigned lane, uint64_t address) {
  const auto& params = w.block->launch.params;
  const std::byte* bytes = nullptr;
  if ((address & kWindowMask) == kParamWindow) {
    const uint64_t offset = address - kParamWindow;
    if (offset > params.size() || kTensorMapBytes > params.size() - offset) {
      w.fail(ErrorKind::kOutOfBounds, lane,
             fmt::format("a tensor map at byte {} of the {} bytes of kernel parameters", offset,
                         params.size()));
    }
    bytes = params.data() + offset;
    address = offset;
  } else {
    check_global(w, lane, address, kTensorMapBytes, false);
    bytes = reinterpret_cast<const std::byte*>(address);
  }
  if (address % kTensorMapAlign != 0) {
    w.fail(ErrorKind::kMisaligned, lane,
           fmt::format("a tensor map at {:#x}, which is not a multiple of {}", address,
                       kTensorMapAlign));
  }
  const auto map =
      decode_tensor_map(std::span<const std::byte, kTensorMapBytes>(bytes, kTensorMapBytes));
  if (!map) w.fail(ErrorKind::kBadLaunch, lane, "these 128 bytes are no tensor map");
  return *map;
}

// A box of one lane's copy being cut into pieces.
class Box {
 public:
  // `coordinates` are operands; `shared` is the box's offset from the start of shared memory.
  Box(Warp& w, unsigned lane, const TensorMap& map, const Operand* coordinates, uint32_t shared)
      : w_(w), lane_(lane), map_(map), shared_(shared) {
    for (uint32_t i = 0; i < map.rank; ++i) {
      start_[i] = w.src<int32_t>(coordinates[i])[lane];
    }
  }

  std::vector<Segment> cut(bool write) {
    write_ = write;
    uint32_t rows = 1;
    for (uint32_t i = 1; i < map_.rank; ++i) rows *= map_.box[i];
    for (uint32_t row = 0; row < rows; ++row) cut_row(row);
    return std::move(segments_);
  }

 private:
  // Address of the row's element 0 of the tensor; null outside the bounds.
  std::byte* row_address(uint32_t row) const {
    uint64_t address = map_.address;
    for (uint32_t i = 1; i < map_.rank; ++i) {
      const int64_t at = start_[i] + row % map_.box[i];
      row /= map_.box[i];
      if (at < 0 || at >= static_cast<int64_t>(map_.dims[i])) return nullptr;
      address += static_cast<uint64_t>(at) * map_.strides[i - 1];
    }
    return reinterpret_cast<std::byte*>(address);
  }

  void cut_row(uint32_t row) {
    const int64_t e = map_.element_bytes;
    const int64_t bytes = map_.box[0] * e;
    const int64_t first = start_[0] * e;  // of the tensor's row
    std::byte* base = row_address(row);
    int64_t begin = std::clamp<int64_t>(-first, 0, bytes);
    int64_t end = std::clamp<int64_t>(static_cast<int64_t>(map_.dims[0]) * e - first, 0, bytes);
    if (base == nullptr) begin = end = 0;
    if (begin < end) {
      check_global(w_, lane_,
                   reinterpret_cast<uint64_t>(base) + static_cast<uint64_t>(first + begin),
                   static_cast<uint64_t>(end - begin), write_);
    }
    const uint32_t to = static_cast<uint32_t>(row * bytes);
    add(to, nullptr, 0, begin);
    if (begin < end) add(to, base + first, begin, end);
    add(to, nullptr, std::max(begin, end), bytes);
  }

  // Bytes [begin, end) of a row that starts `to` bytes into the box.
  void add(uint32_t to, std::byte* global, int64_t begin, int64_t end) {
    while (begin < end) {
      int64_t stop = end;
      if (map_.swizzle != TensorSwizzle::kNone)
        stop = std::min(end, begin / kChunk * kChunk + kChunk);
      Segment s;
      s.global = global == nullptr ? nullptr : global + begin;
      s.shared = swizzled(to + static_cast<uint32_t>(begin));
      s.bytes = static_cast<uint32_t>(stop - begin);
      segments_.push_back(s);
      begin = stop;
    }
  }

  uint32_t swizzled(uint32_t offset) const {
    const uint32_t address = kSharedBase + shared_ + offset;
    const uint32_t mask = (1u << static_cast<uint32_t>(map_.swizzle)) - 1;
    return (address ^ (address >> 7 & mask) << 4) - kSharedBase;
  }

  Warp& w_;
  unsigned lane_;
  const TensorMap& map_;
  uint32_t shared_;
  bool write_ = false;
  std::array<int64_t, kMaxTensorRank> start_{};
  std::vector<Segment> segments_;
};

uint32_t box_bytes(const TensorMap& map) {
  uint32_t bytes = map.element_bytes;
  for (uint32_t i = 0; i < map.rank; ++i) bytes *= map.box[i];
  return bytes;
}

// aux: dimensions that the instruction names.
TensorMap map_operand(Warp& w, const Instr& in, unsigned lane, uint64_t address) {
  const TensorMap map = load_map(w, lane, address);
  if (map.rank == in.aux) return map;
  w.fail(ErrorKind::kBadLaunch, lane,
         fmt::format("a copy of {} dimensions with a tensor map of {}", in.aux, map.rank));
}

// Operands: destination, map, coordinates, mbarrier.
void exec_load(Warp& w, const Instr& in) {
  w.require_sources(in);
  Addresses to, from, barrier;
  compute_addresses(w, in.op[0], in.offset, to);
  compute_addresses(w, in.op[1], in.offset2, from);
  compute_addresses(w, in.op[2 + in.aux], in.offset3, barrier);
  each_lane(w.mask, [&](unsigned l) {
    const TensorMap map = map_operand(w, in, l, from[l]);
    BulkCopy copy{.instr = in.index, .thread = w.thread(l), .bytes = box_bytes(map)};
    const uint32_t shared = check_shared(w, l, to[l], copy.bytes, kBoxAlign);
    copy.segments = Box(w, l, map, in.op + 2, shared).cut(false);
    issue_bulk_copy(w, l, barrier[l], std::move(copy));
  });
  w.block->note_progress();
}

// Operands: map, coordinates, source.
void exec_store(Warp& w, const Instr& in) {
  w.require_sources(in);
  Addresses to, from;
  compute_addresses(w, in.op[0], in.offset, to);
  compute_addresses(w, in.op[1 + in.aux], in.offset2, from);
  each_lane(w.mask, [&](unsigned l) {
    const TensorMap map = map_operand(w, in, l, to[l]);
    BulkStore store{.instr = in.index, .thread = w.thread(l)};
    const uint32_t shared = check_shared(w, l, from[l], box_bytes(map), kBoxAlign);
    store.segments = Box(w, l, map, in.op + 1, shared).cut(true);
    issue_bulk_store(w, l, std::move(store));
  });
  w.block->note_progress();
}

// Operands: map, coordinates or none.
void exec_prefetch(Warp& w, const Instr& in) {
  w.require_sources(in);
  Addresses from;
  compute_addresses(w, in.op[0], in.offset, from);
  each_lane(w.mask, [&](unsigned l) {
    if (in.aux == 0) {
      load_map(w, l, from[l]);
    } else {
      map_operand(w, in, l, from[l]);
    }
  });
}

template <ExecFn kExec>
void bind_tensor(const Match& m, Instr& in) {
  for (std::string_view s : m.segments) {
    if (s.size() == 2 && s[1] == 'd') in.aux = static_cast<uint32_t>(s[0] - '0');
  }
  if (m.coordinates != in.aux) return;
  in.completes_on_mbarrier = kExec == exec_load;
  in.exec = kExec;
}

constexpr Row kRows[] = {
    {"cp.async.bulk.tensor.1d|2d|3d|4d|5d.shared::cluster|shared::cta.global.tile?."
     "mbarrier::complete_tx::bytes.L2::cache_hint?",
     "a m a s:b64?", bind_tensor<exec_load>},
    {"cp.async.bulk.tensor.1d|2d|3d|4d|5d.global.shared::cta.tile?.bulk_group.L2::cache_hint?",
     "m a s:b64?", bind_tensor<exec_store>},
    {"cp.async.bulk.prefetch.tensor.1d|2d|3d|4d|5d.L2.global.tile?.L2::cache_hint?", "m s:b64?",
     bind_tensor<exec_prefetch>},
    {"prefetch.param|const?.tensormap", "a", bind_tensor<exec_prefetch>},
};

}  // namespace

std::span<const Row> tensor_rows() {
  return kRows;
}

}  // namespace sagejit::emulator
