// float64 matrix product over packed panels: what makes the reference quick.
//
// Each element of the product is summed in ascending order of the inner index, one multiplication
// and one addition at a time, so results do not depend on blocking, vector width or number of
// threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sagejit::reference {

inline constexpr int64_t kPanelColumns = 8;

// An inner x columns matrix, stored as panels of kPanelColumns columns; missing columns are zero.
class PackedMatrix {
 public:
  PackedMatrix(int64_t inner, int64_t columns);
  double& at(int64_t k, int64_t column) {
    return data_[static_cast<size_t>(((column / kPanelColumns) * inner_ + k) * kPanelColumns +
                                     column % kPanelColumns)];
  }
  const double* panel(int64_t index) const { return data_.data() + index * inner_ * kPanelColumns; }
  int64_t num_panels() const { return num_panels_; }

 private:
  int64_t inner_;
  int64_t num_panels_;
  std::vector<double> data_;
};

// Rows [0, rows) of `a` (row stride lda), its inner indices [k_begin, k_end), times panels
// [panel_begin, panel_end) of `b`: written to c[row * ldc + column], columns counted from panel 0.
// c has room for whole panels.
struct PanelProduct {
  const double* a;
  int64_t lda;
  int64_t rows;
  int64_t k_begin, k_end;
  int64_t panel_begin, panel_end;
  double* c;
  int64_t ldc;
};
void multiply(const PackedMatrix& b, const PanelProduct& product);

}  // namespace sagejit::reference
