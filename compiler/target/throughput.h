// How fast a target's multiprocessor is, unit by unit; rows of throughput.def, which names the
// sources.
#pragma once

#include <string_view>

#include "compiler/support/dtype.h"
#include "compiler/target/target.h"

namespace sagejit {

struct Throughput {
  std::string_view target;
  std::string_view gpu;  // that stands for the target
  int num_sms;
  int clock_mhz;                                 // nominal: the data sheet's boost clock
  int dram_gb_s;                                 // 10^9 bytes per second
  int s8, s4, f16_f32, f16_f16, e4m3_f32, e2m1;  // tensor-core operations per clock; 0: none
  int special, fp32, alu;                        // results per clock
  bool int_to_float_is_alu;                      // else `special`
  int max_inputs;                                // of an instruction for the largest integer
};

// Of every target: instructions of a thread issued, and bytes of shared memory moved, per clock.
inline constexpr int kIssuePerClock = 128;
inline constexpr int kSmemBytesPerClock = 128;

// Null for a target without a row: its rates are not published.
const Throughput* find_throughput(const Target& target);
// Throws Error{kUnsupported} there.
const Throughput& throughput_of(const Target& target);

// Operations per clock of dense products of two operands of type `operand`, added up in
// `accumulator`; 0: the hardware has none.
int tensor_throughput(const Throughput& throughput, DType operand, DType accumulator);

}  // namespace sagejit
