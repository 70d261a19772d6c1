// Tensors whose elements lie more than 2^31 elements from their address.
//
// On the emulator the region is reserved without memory behind it; a GPU allocates it.
#include <sys/mman.h>

#include <cstring>

#include "compiler/support/error.h"
#include "tests/emulated/lab.h"
#include "tests/emulated/problem.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

class Region {
 public:
  Region(Device& device, bool sparse, uint64_t bytes)
      : device_(device), sparse_(sparse), bytes_(bytes) {
    if (!sparse_) {
      address_ = device_.allocate(bytes_);
      return;
    }
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail(ErrorKind::kMemory, "cannot reserve {} bytes", bytes_);
    address_ = reinterpret_cast<uintptr_t>(memory);
  }
  ~Region() {
    if (sparse_) {
      munmap(reinterpret_cast<void*>(static_cast<uintptr_t>(address_)), bytes_);
    } else {
      device_.free(address_);
    }
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  uint64_t address() const { return address_; }

 private:
  Device& device_;
  bool sparse_;
  uint64_t bytes_;
  uint64_t address_ = 0;
};

constexpr reference::ProblemShape kShape = {
    .b = 2, .hq = 2, .hkv = 2, .m = 3, .n = 3, .d = 64, .dv = 64};

// One operand with one huge stride: which axis, and how many elements.
struct Far {
  Operand operand;
  int axis;
  int64_t stride;
};

// 2^31 + 64 overflows int32 elements at index 1; 2^30 + 8 at index 2.
constexpr int64_t kHuge = (int64_t{1} << 31) + 64, kHalf = (int64_t{1} << 30) + 8;
constexpr Far kFars[] = {
    {Operand::kQ, 0, kHuge},   {Operand::kK, 0, kHuge},   {Operand::kV, 0, kHuge},
    {Operand::kO, 0, kHuge},   {Operand::kLse, 0, kHuge}, {Operand::kQ, 1, kHuge},
    {Operand::kK, 1, kHuge},   {Operand::kV, 1, kHuge},   {Operand::kO, 1, kHuge},
    {Operand::kLse, 1, kHuge}, {Operand::kQ, 2, kHalf},   {Operand::kK, 2, kHalf},
    {Operand::kV, 2, kHalf},   {Operand::kO, 2, kHalf},
};

uint64_t element_bytes(const Tensor& tensor) {
  return static_cast<uint64_t>(bits_of(tensor.dtype) / 8);
}

uint64_t extent_bytes(const Tensor& tensor) {
  int64_t last = 0;
  for (size_t i = 0; i < static_cast<size_t>(tensor.rank); ++i) {
    last += (tensor.shape[i] - 1) * tensor.strides[i];
  }
  return static_cast<uint64_t>(last + 1) * element_bytes(tensor);
}

// Visits every element's offset in bytes in `a` and `b`, tensors of one shape.
template <typename Visit>
void for_each_offset(const Tensor& a, const Tensor& b, Visit visit) {
  reference::Shape4 shape = {1, 1, 1, 1};
  for (size_t i = 0; i < static_cast<size_t>(a.rank); ++i) shape[i] = a.shape[i];
  reference::for_each_index(shape, [&](int64_t x, int64_t y, int64_t z, int64_t w) {
    const int64_t index[] = {x, y, z, w};
    int64_t at_a = 0, at_b = 0;
    for (size_t i = 0; i < static_cast<size_t>(a.rank); ++i) {
      at_a += index[i] * a.strides[i];
      at_b += index[i] * b.strides[i];
    }
    visit(static_cast<uint64_t>(at_a) * element_bytes(a),
          static_cast<uint64_t>(at_b) * element_bytes(b));
  });
}

void copy_elements(Device& device, const Tensor& from, const Tensor& to) {
  for_each_offset(from, to, [&](uint64_t at_from, uint64_t at_to) {
    uint32_t element = 0;
    device.copy_out(&element, from.address + at_from, element_bytes(from), nullptr);
    device.copy_in(to.address + at_to, &element, element_bytes(to), nullptr);
  });
}

TEST_CASE("offsets beyond 2^31 elements", "[emulated][far]") {
  if (!Lab::mma_sync().ready()) return;
  const Variant variant = variant_of("head_dim = 64; lse = on; smooth_k = mean");
  const auto kernel = Lab::mma_sync().kernel(variant);
  Device& device = kernel->device();
  const Inputs inputs = make_inputs("normal", kShape, variant.input, 9);
  Problem near(*kernel, inputs);
  near.launch();
  for (const Far& far : kFars) {
    const auto index = static_cast<size_t>(far.operand);
    CAPTURE(kOperandNames[index], far.axis, far.stride);
    Problem problem(*kernel, inputs);
    const Tensor home = problem.args().tensors[index];
    Tensor away = home;
    away.strides[static_cast<size_t>(far.axis)] = far.stride;
    const Region region(device, Lab::mma_sync().is_emulated(), extent_bytes(away));
    away.address = region.address();
    copy_elements(device, home, away);  // outputs: their NaN patterns
    problem.args().tensors[index] = away;
    problem.launch();
    copy_elements(device, away, home);
    CHECK((problem.o().bytes() == near.o().bytes()));
    CHECK((problem.lse().bytes() == near.lse().bytes()));
    if (far.operand != Operand::kQ && far.operand != Operand::kK && far.operand != Operand::kV) {
      CHECK(problem.damage() == "");
    }
  }
}

}  // namespace
}  // namespace sagejit::test
