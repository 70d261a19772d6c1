#include "tests/reference/host_tensor.h"

#include <algorithm>
#include <cstring>

#include "compiler/support/error.h"
#include "tests/reference/float16.h"

namespace sagejit::reference {
namespace {

constexpr uint8_t kUnwritten = 0xff;  // all bits set is a NaN in each of the three types

int64_t storage_elements(const Shape4& shape, const Shape4& strides) {
  int64_t last = 0;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] < 0 || strides[axis] < 0) {
      fail(ErrorKind::kArgument,
           "axis {} of a host tensor has size {} and stride {}; both must be >= 0", axis,
           shape[axis], strides[axis]);
    }
    if (shape[axis] == 0) return 0;
    last += (shape[axis] - 1) * strides[axis];
  }
  return last + 1;
}

}  // namespace

Shape4 strides_bhtd(const Shape4& shape) {
  return {shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1};
}

Shape4 strides_bthd(const Shape4& shape) {
  return {shape[1] * shape[2] * shape[3], shape[3], shape[1] * shape[3], 1};
}

HostTensor::HostTensor(DType type, const Shape4& shape)
    : HostTensor(type, shape, strides_bhtd(shape)) {}

HostTensor::HostTensor(DType type, const Shape4& shape, const Shape4& strides)
    : type_(type), shape_(shape), strides_(strides) {
  if (type != DType::kF16 && type != DType::kBF16 && type != DType::kF32) {
    fail(ErrorKind::kArgument, "host tensors hold f16, bf16 or f32, not {}", name_of(type));
  }
  bytes_.assign(static_cast<size_t>(storage_elements(shape, strides) * bits_of(type) / 8),
                kUnwritten);
}

float HostTensor::load(int64_t element) const {
  if (type_ == DType::kF32) {
    float value;
    std::memcpy(&value, bytes_.data() + element * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes_.data() + element * 2, 2);
  return type_ == DType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

void HostTensor::store(int64_t element, double value) {
  if (type_ == DType::kF32) {
    const auto narrowed = static_cast<float>(value);
    std::memcpy(bytes_.data() + element * 4, &narrowed, 4);
    return;
  }
  const uint16_t bits = type_ == DType::kF16 ? f64_to_f16(value) : f64_to_bf16(value);
  std::memcpy(bytes_.data() + element * 2, &bits, 2);
}

HostTensor HostTensor::restrided(const Shape4& strides) const {
  HostTensor result(type_, shape_, strides);
  const int64_t size = bits_of(type_) / 8;
  for_each_index(shape_, [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    std::memcpy(result.bytes_.data() + result.offset(b, h, t, d) * size,
                bytes_.data() + offset(b, h, t, d) * size, static_cast<size_t>(size));
  });
  return result;
}

std::vector<double> HostTensor::to_f64() const {
  std::vector<double> values;
  values.reserve(static_cast<size_t>(num_elements()));
  for_each_index(shape_, [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    values.push_back(get(b, h, t, d));
  });
  return values;
}

}  // namespace sagejit::reference
