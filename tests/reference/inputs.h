// Inputs by name: seeded, the same on every platform (up to the last bit of log and cos before
// rounding).
//
// - normal: Q, K, V ~ N(0, 1)
// - biased_k: K has a bias per (batch, head, channel) ~ N(0, 4^2); two channels of V are 10 times
//   larger
// - biased_qk: Q and K have such biases, each its own
// - outlier_v: V has channel means ~ N(0, 8^2), and two channels are 10 times larger
// - sink: the first key's score is about 14 above the others': it takes nearly all of each row
// - zero: whole heads of Q, K or V are zero in turn, and so is every fourth channel of what is left
// - constant: every element of Q, of K and of V is the same value
// - fp16_max: Q and V reach +-65504 (the f16 maximum) and K is tiny, so that scores stay near N(0,
//   1)
// - growing: K grows 16-fold from the first token to the last, Q twofold from head to head, four
//   times
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "compiler/support/dtype.h"
#include "tests/reference/host_tensor.h"

namespace sagejit::reference {

struct ProblemShape {
  int64_t b = 1, hq = 1, hkv = 1, m = 1, n = 1, d = 64, dv = 64;
};

struct Inputs {
  HostTensor q, k, v;  // [b, hq, m, d], [b, hkv, n, d], [b, hkv, n, dv]; contiguous
};

std::span<const std::string_view> input_names();

// Throws Error{kArgument} for an unknown name, listing the known ones.
Inputs make_inputs(std::string_view name, const ProblemShape& shape, DType type, uint64_t seed);

}  // namespace sagejit::reference
