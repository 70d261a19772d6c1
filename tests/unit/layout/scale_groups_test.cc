#include "compiler/layout/scale_groups.h"

#include <array>

#include "compiler/support/size_expr.h"
#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {
namespace {

Quantization int8(Granularity granularity, int span = 0) {
  return {DType::kS8, granularity, span};
}

int64_t head_stride(const ScaleGroups& groups, std::string_view axis, int64_t tokens) {
  std::array<int64_t, kNumSymbols> values{};
  values[static_cast<size_t>(axis == "m" ? Symbol::kM : Symbol::kN)] = tokens;
  return SizeExpr(scale_head_stride(groups, axis)).evaluate(values);
}

}  // namespace

TEST_CASE("scale groups of tokens, by hand") {
  struct Row {
    ScaleGroups groups;
    int token, index;
  };
  const ScaleGroups q_thread = scale_groups_of_q(int8(Granularity::kThread, 32));
  const ScaleGroups k_thread = scale_groups_of_k(int8(Granularity::kThread, 64));
  const ScaleGroups block = scale_groups_of_q(int8(Granularity::kBlock, 128));
  const ScaleGroups warp = scale_groups_of_k(int8(Granularity::kWarp, 32));
  const ScaleGroups token = scale_groups_of_k(int8(Granularity::kToken));
  const ScaleGroups head = scale_groups_of_q(int8(Granularity::kHead));
  const Row rows[] = {
      {q_thread, 0, 0},  {q_thread, 1, 1},  {q_thread, 7, 7},   {q_thread, 8, 0},
      {q_thread, 31, 7}, {q_thread, 32, 8}, {q_thread, 45, 13}, {q_thread, 64, 16},
      {k_thread, 0, 0},  {k_thread, 1, 0},  {k_thread, 2, 1},   {k_thread, 7, 3},
      {k_thread, 8, 0},  {k_thread, 63, 3}, {k_thread, 64, 4},  {k_thread, 77, 6},
      {block, 0, 0},     {block, 127, 0},   {block, 128, 1},    {block, 300, 2},
      {warp, 31, 0},     {warp, 32, 1},     {warp, 100, 3},     {token, 0, 0},
      {token, 77, 77},   {head, 0, 0},      {head, 1000, 0},
  };
  for (const Row& row : rows) {
    INFO("span " << row.groups.span << ", groups " << row.groups.groups << ", token " << row.token);
    CHECK(row.groups.index(row.token) == row.index);
  }
}

TEST_CASE("one thread's rows and columns of an m16n8k32 product share a scale") {
  const ScaleGroups q = scale_groups_of_q(int8(Granularity::kThread, 32));
  const ScaleGroups k = scale_groups_of_k(int8(Granularity::kThread, 64));
  for (int lane = 0; lane < 32; ++lane) {
    for (int tile = 0; tile < 8; ++tile) {
      const int column = 8 * tile + 2 * (lane % 4);
      CHECK(k.index(column) == lane % 4);
      CHECK(k.index(column + 1) == lane % 4);
    }
    for (int row = lane / 4; row < 32; row += 8) CHECK(q.index(row) == lane / 4);
  }
}

TEST_CASE("one scale for a head or for the tensor needs a pass over the data") {
  const ScaleGroups head = scale_groups_of_q(int8(Granularity::kHead));
  const ScaleGroups tensor = scale_groups_of_k(int8(Granularity::kTensor));
  CHECK(head.is_dynamic());
  CHECK(head.per_head);
  CHECK(tensor.is_dynamic());
  CHECK_FALSE(tensor.per_head);
  CHECK(head_stride(head, "m", 1000) == 1);
  CHECK(head_stride(tensor, "n", 1000) == 0);
  CHECK_FALSE(scale_groups_of_k(int8(Granularity::kToken)).is_dynamic());
}

TEST_CASE("a head has scales for whole runs of 128 tokens, and for every token's group") {
  struct Row {
    ScaleGroups groups;
    int64_t tokens, stride;
  };
  const Row rows[] = {
      {scale_groups_of_q(int8(Granularity::kToken)), 1, 128},
      {scale_groups_of_q(int8(Granularity::kToken)), 130, 256},
      {scale_groups_of_q(int8(Granularity::kBlock, 128)), 130, 2},
      {scale_groups_of_q(int8(Granularity::kBlock, 48)), 130, 6},
      {scale_groups_of_q(int8(Granularity::kThread, 32)), 130, 64},
      {scale_groups_of_q(int8(Granularity::kThread, 32)), 0, 0},
  };
  for (const Row& row : rows) {
    INFO("span " << row.groups.span << ", tokens " << row.tokens);
    CHECK(head_stride(row.groups, "m", row.tokens) == row.stride);
    for (int token = 0; token < row.tokens; ++token) CHECK(row.groups.index(token) < row.stride);
  }
}

TEST_CASE("granularities within a row have no scale groups of tokens") {
  const Error error = thrown_by([] { scale_groups_of_q(int8(Granularity::kGroup16, 16)); });
  CHECK(error.kind() == ErrorKind::kInternal);
  CHECK(error.message() == "no scale groups for this granularity");
}

}  // namespace sagejit
