#include "runtime/device/emulator/semantics/float8_sum.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/device/emulator/semantics/numerics.h"

namespace sagejit::emulator {
namespace {

constexpr int kFraction = 13;     // bits kept behind the largest exponent's, and behind the sum's
constexpr int16_t kNone = -1000;  // exponent of 0: below any, also with another one added
// Where products are not all 0 their largest exponent is above this: -28 at least, in e5m2.
constexpr int32_t kLeastOfProducts = -64;

struct ExponentTable {
  int16_t of[256] = {};
};
template <class F>
constexpr ExponentTable make_exponents() {
  constexpr int kMantissa = 7 - F::kExponentBits;
  constexpr int kBias = (1 << (F::kExponentBits - 1)) - 1;
  ExponentTable table;
  for (int i = 0; i < 256; ++i) {
    const int field = (i & 127) >> kMantissa;
    table.of[i] = static_cast<int16_t>((field == 0 ? 1 : field) - kBias);
  }
  table.of[0] = table.of[128] = kNone;
  return table;
}
template <class F>
constexpr ExponentTable kExponents = make_exponents<F>();

float power_of_two(int32_t exponent) {
  return std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23);
}

// Vectors of the host's smallest SIMD width.
typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(16)));
typedef int16_t Shorts __attribute__((vector_size(16)));

constexpr unsigned kPanel = 8;     // columns
constexpr unsigned kTogether = 2;  // rows

// Of one row and the columns of a panel.
struct Grid {
  int32_t exponent[kPanel];
  alignas(16) float scale[kPanel];  // makes products multiples of the grid's spacing
  alignas(16) int32_t sum[kPanel];  // in units of it; begins as C's share

  void place(const int16_t* of_products, const uint32_t* c) {
    for (unsigned j = 0; j < kPanel; ++j) {
      const auto field = static_cast<int32_t>(c[j] >> 23 & 0xff);
      const int32_t of_c = (field == 0 ? 1 : field) - 127;
      const int32_t product = of_products[j];
      // A C of 0 counts as subnormal, which only a sum of nothing but zeros can notice.
      exponent[j] = product > of_c ? product : of_c;
      scale[j] = power_of_two(kFraction -
                              (exponent[j] > kLeastOfProducts ? exponent[j] : kLeastOfProducts));
      // In two steps, as the factor may exceed f32. What underflows in between is below the grid.
      const int32_t shift = kFraction - exponent[j], half = shift >> 1;
      const float share =
          std::bit_cast<float>(c[j]) * power_of_two(half) * power_of_two(shift - half);
      sum[j] = static_cast<int32_t>(field == 255 ? 0.0f : share);
    }
  }

  void finish(uint32_t* out) const {
    constexpr uint32_t kKept = ~((1u << (23 - kFraction)) - 1);
    for (unsigned j = 0; j < kPanel; ++j) {
      // Exact: 33 addends below 4 * 2^13.
      const auto units = static_cast<float>(sum[j]);
      const float cut = std::bit_cast<float>(std::bit_cast<uint32_t>(units) & kKept);
      const int32_t shift = exponent[j] - kFraction, half = shift >> 1;
      out[j] = std::bit_cast<uint32_t>(cut * power_of_two(half) * power_of_two(shift - half));
    }
  }
};

struct Panel {
  Floats value[kMmaRowBytes][2];
  Shorts exponent[kMmaRowBytes];

  template <class Sum>
  void load(const Sum& s, unsigned column) {
    for (unsigned k = 0; k < kMmaRowBytes; ++k) {
      std::memcpy(value[k], &s.b[k][column], sizeof(value[k]));
      std::memcpy(&exponent[k], &s.exponent_b[k][column], sizeof(exponent[k]));
    }
  }
};

using Broadcast8 = int16_t[8];

Shorts largest_exponents(const Broadcast8* row, const Panel& panel) {
  Shorts largest = {kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone};
  for (unsigned k = 0; k < kMmaRowBytes; ++k) {
    Shorts factor;
    std::memcpy(&factor, row[k], sizeof(factor));
    const Shorts product = factor + panel.exponent[k];
    largest = product > largest ? product : largest;
  }
  return largest;
}

// Conversion to integers is what cuts off towards zero. Infinities and NaNs give some number or
// other.
template <class Sum>
void add_rows(const Sum& s, unsigned first, const Panel& panel, Grid* grids) {
  Floats scale[kTogether][2];
  Words sum[kTogether][2];
  for (unsigned i = 0; i < kTogether; ++i) {
    std::memcpy(scale[i], grids[i].scale, sizeof(scale[i]));
    std::memcpy(sum[i], grids[i].sum, sizeof(sum[i]));
  }
  for (unsigned k = 0; k < kMmaRowBytes; ++k) {
    for (unsigned i = 0; i < kTogether; ++i) {
      Floats a;
      std::memcpy(&a, s.a[first + i][k], sizeof(a));
      for (unsigned p = 0; p < 2; ++p) {
        const Floats product = a * panel.value[k][p];
        sum[i][p] += (Words) __builtin_convertvector(product * scale[i][p], Ints);
      }
    }
  }
  for (unsigned i = 0; i < kTogether; ++i) std::memcpy(grids[i].sum, sum[i], sizeof(sum[i]));
}

bool is_special(uint32_t f32) {
  return (f32 & 0x7f800000u) == 0x7f800000u;
}

// Whether there is an infinity or a NaN.
template <class F>
bool decode(const std::byte* codes, float* values, int16_t* exponents) {
  bool special = false;
  for (unsigned k = 0; k < kMmaRowBytes; ++k) {
    const auto code = static_cast<uint8_t>(codes[k]);
    values[k] = float8_to_f32<F>(code);
    exponents[k] = kExponents<F>.of[code];
    special |= is_special(std::bit_cast<uint32_t>(values[k]));
  }
  return special;
}

bool decode(MmaElement type, const std::byte* codes, float* values, int16_t* exponents) {
  return type == MmaElement::kE4M3 ? decode<E4M3>(codes, values, exponents)
                                   : decode<E5M2>(codes, values, exponents);
}

}  // namespace

template <unsigned kRows, unsigned kColumns>
void Float8Sum<kRows, kColumns>::set_row(unsigned row, MmaElement type, bool negate,
                                         const std::byte* codes) {
  float values[kMmaRowBytes];
  int16_t exponents[kMmaRowBytes];
  special_row[row] = decode(type, codes, values, exponents);
  for (unsigned k = 0; k < kMmaRowBytes; ++k) {
    for (float& x : a[row][k]) x = negate ? -values[k] : values[k];
    for (int16_t& x : exponent_a[row][k]) x = exponents[k];
  }
}

template <unsigned kRows, unsigned kColumns>
void Float8Sum<kRows, kColumns>::set_column(unsigned column, MmaElement type,
                                            const std::byte* codes) {
  float values[kMmaRowBytes];
  int16_t exponents[kMmaRowBytes];
  special_column[column] = decode(type, codes, values, exponents);
  for (unsigned k = 0; k < kMmaRowBytes; ++k) {
    b[k][column] = values[k];
    exponent_b[k][column] = exponents[k];
  }
}

template <unsigned kRows, unsigned kColumns>
void Float8Sum<kRows, kColumns>::add_up(unsigned n) {
  Panel panel;
  for (unsigned column = 0; column < n; column += kPanel) {
    panel.load(*this, column);
    for (unsigned row = 0; row < kRows; row += kTogether) {
      Grid grids[kTogether];
      for (unsigned i = 0; i < kTogether; ++i) {
        int16_t exponents[kPanel];
        const Shorts largest = largest_exponents(exponent_a[row + i], panel);
        std::memcpy(exponents, &largest, sizeof(exponents));
        grids[i].place(exponents, &c[row + i][column]);
      }
      add_rows(*this, row, panel, grids);
      for (unsigned i = 0; i < kTogether; ++i) grids[i].finish(&out[row + i][column]);
    }
  }
  add_up_special(n);
}

// Replaces what has an infinity or a NaN among its addends.
template <unsigned kRows, unsigned kColumns>
void Float8Sum<kRows, kColumns>::add_up_special(unsigned n) {
  for (unsigned row = 0; row < kRows; ++row) {
    bool any = special_row[row];
    for (unsigned column = 0; column < n; ++column) {
      any |= special_column[column] | is_special(c[row][column]);
    }
    for (unsigned column = 0; any && column < n; ++column) {
      if (!special_row[row] && !special_column[column] && !is_special(c[row][column])) continue;
      float sum = std::bit_cast<float>(c[row][column]);
      for (unsigned k = 0; k < kMmaRowBytes; ++k) sum += a[row][k][0] * b[k][column];
      out[row][column] = std::bit_cast<uint32_t>(canonical(sum));
    }
  }
}

template struct Float8Sum<kMmaM, kMmaMaxN>;
template struct Float8Sum<16, 8>;

}  // namespace sagejit::emulator
