// HostTensor: a tensor [b, h, t, d] in host memory, f16, bf16 or f32, with arbitrary element
// strides.
//
// Fresh storage is filled with NaN patterns, gaps between rows included, so that whatever reads an
// element nobody wrote, or leaves an output unwritten, shows. Copyable plain data; reading from
// several threads is safe.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "compiler/support/dtype.h"

namespace sagejit::reference {

using Shape4 = std::array<int64_t, 4>;  // b, h, t, d

// Element strides of a tensor stored as [b, h, t, d], or as [b, t, h, d].
Shape4 strides_bhtd(const Shape4& shape);
Shape4 strides_bthd(const Shape4& shape);

class HostTensor {
 public:
  HostTensor() = default;
  // Contiguous [b, h, t, d]. Throws Error{kArgument} for another type or a negative size.
  HostTensor(DType type, const Shape4& shape);
  // Strides are in elements and not negative.
  HostTensor(DType type, const Shape4& shape, const Shape4& strides);

  DType type() const { return type_; }
  const Shape4& shape() const { return shape_; }
  const Shape4& strides() const { return strides_; }
  int64_t num_elements() const { return shape_[0] * shape_[1] * shape_[2] * shape_[3]; }

  // The storage, gaps included; element (0, 0, 0, 0) is its first.
  std::vector<uint8_t>& bytes() { return bytes_; }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

  int64_t offset(int64_t b, int64_t h, int64_t t, int64_t d) const {
    return b * strides_[0] + h * strides_[1] + t * strides_[2] + d * strides_[3];
  }
  float get(int64_t b, int64_t h, int64_t t, int64_t d) const { return load(offset(b, h, t, d)); }
  // Rounds once, to nearest even.
  void set(int64_t b, int64_t h, int64_t t, int64_t d, double value) {
    store(offset(b, h, t, d), value);
  }

  // The same elements under other strides.
  HostTensor restrided(const Shape4& strides) const;
  // The elements in [b, h, t, d] order.
  std::vector<double> to_f64() const;

 private:
  float load(int64_t element) const;
  void store(int64_t element, double value);

  DType type_ = DType::kF16;
  Shape4 shape_{};
  Shape4 strides_{};
  std::vector<uint8_t> bytes_;
};

// Calls visit(b, h, t, d) for every index of the shape, in order.
template <typename Visit>
void for_each_index(const Shape4& shape, Visit visit) {
  for (int64_t b = 0; b < shape[0]; ++b) {
    for (int64_t h = 0; h < shape[1]; ++h) {
      for (int64_t t = 0; t < shape[2]; ++t) {
        for (int64_t d = 0; d < shape[3]; ++d) visit(b, h, t, d);
      }
    }
  }
}

}  // namespace sagejit::reference
