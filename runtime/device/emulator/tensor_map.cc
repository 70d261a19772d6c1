#include "runtime/device/emulator/tensor_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "runtime/device/emulator/error.h"

namespace sagejit::emulator {
namespace {

constexpr uint64_t kMagic = 0x70616d2d65746a73ull;
constexpr uint64_t kAlign = 16;

// As stored; the rest of the 128 bytes is zero.
struct Encoded {
  uint64_t magic = kMagic;
  uint64_t address = 0;
  uint64_t strides[kMaxTensorRank - 1] = {};
  uint32_t last[kMaxTensorRank] = {};  // dims - 1
  uint16_t box[kMaxTensorRank] = {};
  uint8_t element_bytes = 0, rank = 0, swizzle = 0;
  uint8_t padding[7] = {};
  uint64_t checksum = 0;
};
static_assert(sizeof(Encoded) <= kTensorMapBytes);

// FNV-1a over everything before the checksum.
uint64_t checksum(const Encoded& e) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&e);
  uint64_t hash = 0xcbf29ce484222325ull;
  for (size_t i = 0; i < offsetof(Encoded, checksum); ++i) {
    hash = (hash ^ bytes[i]) * 0x100000001b3ull;
  }
  return hash;
}

[[noreturn]] void refuse(std::string message) {
  ErrorInfo e;
  e.kind = ErrorKind::kBadLaunch;
  e.message = "tensor map: " + std::move(message);
  throw Error(std::move(e));
}

void check(const TensorMap& m) {
  constexpr uint64_t kMaxDim = uint64_t{1} << 32;
  constexpr uint64_t kMaxStride = uint64_t{1} << 40;
  constexpr uint32_t kMaxBox = 256;
  const uint32_t e = m.element_bytes;
  if (e != 1 && e != 2 && e != 4 && e != 8) refuse(fmt::format("elements of {} bytes", e));
  if (m.rank == 0 || m.rank > kMaxTensorRank) refuse(fmt::format("rank {}", m.rank));
  if (m.address % kAlign != 0) refuse(fmt::format("address {:#x}", m.address));
  for (uint32_t i = 0; i < m.rank; ++i) {
    if (m.dims[i] == 0 || m.dims[i] > kMaxDim)
      refuse(fmt::format("dimension {} is {}", i, m.dims[i]));
    if (m.box[i] == 0 || m.box[i] > kMaxBox)
      refuse(fmt::format("box dimension {} is {}", i, m.box[i]));
    if (i == 0) continue;
    const uint64_t stride = m.strides[i - 1];
    if (stride % kAlign != 0 || stride >= kMaxStride) {
      refuse(fmt::format("the stride of dimension {} is {} bytes", i, stride));
    }
  }
  const uint32_t row = m.box[0] * e;
  if (row % kAlign != 0)
    refuse(fmt::format("rows of the box have {} bytes, no multiple of 16", row));
  // A narrower row is legal on the device, but its layout is not documented.
  const uint32_t width = 16u << static_cast<uint32_t>(m.swizzle);
  if (m.swizzle != TensorSwizzle::kNone && row != width) {
    refuse(fmt::format("rows of the box have {} bytes, the swizzle {}", row, width));
  }
}

}  // namespace

TensorMapBytes encode_tensor_map(const TensorMap& map) {
  check(map);
  Encoded e{};
  e.address = map.address;
  e.element_bytes = static_cast<uint8_t>(map.element_bytes);
  e.rank = static_cast<uint8_t>(map.rank);
  e.swizzle = static_cast<uint8_t>(map.swizzle);
  for (uint32_t i = 0; i < map.rank; ++i) {
    e.last[i] = static_cast<uint32_t>(map.dims[i] - 1);
    e.box[i] = static_cast<uint16_t>(map.box[i]);
    if (i > 0) e.strides[i - 1] = map.strides[i - 1];
  }
  e.checksum = checksum(e);
  TensorMapBytes out{};
  std::memcpy(out.data(), &e, sizeof(e));
  return out;
}

std::optional<TensorMap> decode_tensor_map(std::span<const std::byte, kTensorMapBytes> bytes) {
  std::array<std::byte, sizeof(Encoded)> raw{};
  std::copy_n(bytes.begin(), raw.size(), raw.begin());
  const auto e = std::bit_cast<Encoded>(raw);
  if (e.magic != kMagic || e.checksum != checksum(e)) return std::nullopt;
  TensorMap map;
  map.address = e.address;
  map.element_bytes = e.element_bytes;
  map.rank = e.rank;
  map.swizzle = static_cast<TensorSwizzle>(e.swizzle);
  for (uint32_t i = 0; i < map.rank; ++i) {
    map.dims[i] = uint64_t{e.last[i]} + 1;
    map.box[i] = e.box[i];
    if (i > 0) map.strides[i - 1] = e.strides[i - 1];
  }
  return map;
}

}  // namespace sagejit::emulator
