#include "compiler/target/throughput.h"

#include "compiler/support/error.h"

namespace sagejit {
namespace {

constexpr Throughput kThroughputs[] = {
#define THROUGHPUT(target, gpu, num_sms, clock_mhz, dram_gb_s, s8, s4, f16_f32, f16_f16, e4m3_f32, \
                   e2m1, special, fp32, alu, int_to_float_is_alu, max_inputs)                      \
  {                                                                                                \
      target,    gpu,     num_sms, clock_mhz, dram_gb_s,                                           \
      s8,        s4,      f16_f32, f16_f16,   e4m3_f32,                                            \
      e2m1,      special, fp32,    alu,       int_to_float_is_alu,                                 \
      max_inputs},
#include "compiler/target/throughput.def"
#undef THROUGHPUT
};

}  // namespace

const Throughput* find_throughput(const Target& target) {
  for (const Throughput& row : kThroughputs) {
    if (row.target == target.name) return &row;
  }
  return nullptr;
}

const Throughput& throughput_of(const Target& target) {
  if (const Throughput* row = find_throughput(target)) return *row;
  fail(ErrorKind::kUnsupported,
       "the speed of {}'s units is not known: compiler/target/throughput.def has no row for it",
       target.name);
}

int tensor_throughput(const Throughput& t, DType operand, DType accumulator) {
  const bool adds_in_f16 = accumulator == DType::kF16;
  switch (operand) {
    case DType::kS8:
    case DType::kU8:
      return t.s8;
    case DType::kS4:
      return t.s4;
    case DType::kF16:
      return adds_in_f16 ? t.f16_f16 : t.f16_f32;
    case DType::kBF16:
      return t.f16_f32;
    case DType::kE4M3:
    case DType::kE5M2:
      // Where f32 halves the rate of 16-bit operands, it does of 8-bit ones.
      return adds_in_f16 ? t.e4m3_f32 * (t.f16_f16 / t.f16_f32) : t.e4m3_f32;
    case DType::kE2M1:
      return t.e2m1;
    default:
      return 0;
  }
}

}  // namespace sagejit
