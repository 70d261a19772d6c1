// KeyOrder: which key of a tile each column of the scores is.
//
// A thread with t = lane % 4 holds the columns 2 t and 2 t + 1 of every 8 of S = Q K^T
// (fragment.h), and of P, the A operand of P V, the elements from byte 4 t on of every 16 bytes. In
// 8 bits V's tokens are permuted to fit that (core_matrix.h). In 4 bits the keys are, so that
// groups of 16 of P and of V are consecutive tokens: within every 32, column 8 j + 2 t + e (j, t <
// 4, e < 2) is key 8 t + 2 j + e, thread t's own eight keys in their order (SageAttention 3, arXiv
// 2505.11594, permutation of K). K's rows lie in the order of the columns.
#pragma once

#include "compiler/support/dtype.h"

namespace sagejit {

enum class KeyOrder { kByColumn, kByThread };

// For the type of P.
constexpr KeyOrder key_order(DType p) {
  return bits_of(p) == 4 ? KeyOrder::kByThread : KeyOrder::kByColumn;
}

inline constexpr int kOrderedKeys = 32;  // that are permuted among themselves

constexpr int key_at_column(KeyOrder order, int column) {
  if (order == KeyOrder::kByColumn) return column;
  const int first = column / kOrderedKeys * kOrderedKeys, in = column % kOrderedKeys;
  return first + in % 8 / 2 * 8 + in / 8 * 2 + in % 2;
}
constexpr int column_of_key(KeyOrder order, int key) {
  if (order == KeyOrder::kByColumn) return key;
  const int first = key / kOrderedKeys * kOrderedKeys, in = key % kOrderedKeys;
  return first + in % 8 / 2 * 8 + in / 8 * 2 + in % 2;
}

// The first key of a tile that thread t holds is t times this.
constexpr int keys_between_threads(KeyOrder order) {
  return key_at_column(order, 2);
}
// And from there to the key of element `e` (0 or 1) of the thread's 8-column tile `tile`.
constexpr int key_of_element(KeyOrder order, int tile, int e) {
  return key_at_column(order, 8 * tile + e);
}

constexpr bool keys_are_in_order(KeyOrder order) {
  for (int column = 0; column < 2 * kOrderedKeys; ++column) {
    const int t = column % 8 / 2, key = key_at_column(order, column);
    if (column_of_key(order, key) != column) return false;
    if (key != t * keys_between_threads(order) + key_of_element(order, column / 8, column % 2))
      return false;
  }
  return true;
}
static_assert(keys_are_in_order(KeyOrder::kByColumn) && keys_are_in_order(KeyOrder::kByThread));

}  // namespace sagejit
