// Tensor maps of the emulator: what cuTensorMapEncodeTiled makes on a device, for kernels that take
// `const __grid_constant__ CUtensorMap`. The 128 bytes are opaque and this emulator's own.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace sagejit::emulator {

inline constexpr uint32_t kTensorMapBytes = 128;
inline constexpr uint32_t kTensorMapAlign = 64;
inline constexpr uint32_t kMaxTensorRank = 5;

enum class TensorSwizzle : uint8_t { kNone, k32B, k64B, k128B };

// A tiled tensor in global memory. Dimension 0 is contiguous. Boxes may reach over the bounds: such
// elements are read as zero and not written.
struct TensorMap {
  uint64_t address = 0;                                // multiple of 16
  uint32_t element_bytes = 1;                          // 1, 2, 4 or 8
  uint32_t rank = 1;                                   // 1..5
  std::array<uint64_t, kMaxTensorRank> dims{};         // elements, 1..2^32
  std::array<uint64_t, kMaxTensorRank - 1> strides{};  // bytes, of dimensions 1..; multiples of 16
  std::array<uint32_t, kMaxTensorRank> box{};          // elements, 1..256
  TensorSwizzle swizzle = TensorSwizzle::kNone;        // of 16-byte chunks within rows of the box
};

using TensorMapBytes = std::array<std::byte, kTensorMapBytes>;

// Throws Error (kBadLaunch) for a map that the device would refuse, and for a swizzle wider than
// the box's rows.
TensorMapBytes encode_tensor_map(const TensorMap& map);

// Nothing when the bytes are no tensor map.
std::optional<TensorMap> decode_tensor_map(std::span<const std::byte, kTensorMapBytes> bytes);

}  // namespace sagejit::emulator
