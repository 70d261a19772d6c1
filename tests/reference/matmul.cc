#include "tests/reference/matmul.h"

#include <cstring>

// One binary serves old and new CPUs: the loader picks the widest clone. Clones do not contract
// multiplication and addition, so all give the same bits. Sanitizers cannot run before the loader's
// choice.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define SAGEJIT_WIDEST_VECTORS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SAGEJIT_WIDEST_VECTORS
#endif

namespace sagejit::reference {
namespace {

constexpr int64_t kRows = 4;
using Vector = double __attribute__((vector_size(kPanelColumns * sizeof(double))));

// Four rows at a time keep their sums in registers while one panel row is loaded once for all of
// them.
SAGEJIT_WIDEST_VECTORS
void multiply_four_rows(const double* a, int64_t lda, const double* panel, int64_t inner, double* c,
                        int64_t ldc) {
  Vector sum0{}, sum1{}, sum2{}, sum3{};
  for (int64_t k = 0; k < inner; ++k) {
    Vector b;
    std::memcpy(&b, panel + k * kPanelColumns, sizeof b);
    sum0 += a[k] * b;
    sum1 += a[lda + k] * b;
    sum2 += a[2 * lda + k] * b;
    sum3 += a[3 * lda + k] * b;
  }
  std::memcpy(c, &sum0, sizeof sum0);
  std::memcpy(c + ldc, &sum1, sizeof sum1);
  std::memcpy(c + 2 * ldc, &sum2, sizeof sum2);
  std::memcpy(c + 3 * ldc, &sum3, sizeof sum3);
}

SAGEJIT_WIDEST_VECTORS
void multiply_one_row(const double* a, const double* panel, int64_t inner, double* c) {
  Vector sum{};
  for (int64_t k = 0; k < inner; ++k) {
    Vector b;
    std::memcpy(&b, panel + k * kPanelColumns, sizeof b);
    sum += a[k] * b;
  }
  std::memcpy(c, &sum, sizeof sum);
}

}  // namespace

PackedMatrix::PackedMatrix(int64_t inner, int64_t columns)
    : inner_(inner),
      num_panels_((columns + kPanelColumns - 1) / kPanelColumns),
      data_(static_cast<size_t>(inner * num_panels_ * kPanelColumns), 0.0) {}

void multiply(const PackedMatrix& b, const PanelProduct& product) {
  const int64_t inner = product.k_end - product.k_begin;
  for (int64_t p = product.panel_begin; p < product.panel_end; ++p) {
    const double* panel = b.panel(p) + product.k_begin * kPanelColumns;
    int64_t row = 0;
    for (; row + kRows <= product.rows; row += kRows) {
      multiply_four_rows(product.a + row * product.lda + product.k_begin, product.lda, panel, inner,
                         product.c + row * product.ldc + p * kPanelColumns, product.ldc);
    }
    for (; row < product.rows; ++row) {
      multiply_one_row(product.a + row * product.lda + product.k_begin, panel, inner,
                       product.c + row * product.ldc + p * kPanelColumns);
    }
  }
}

}  // namespace sagejit::reference
