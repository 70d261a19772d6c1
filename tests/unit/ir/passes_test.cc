#include "compiler/ir/passes/passes.h"

#include <fmt/format.h>

#include "compiler/ir/ir.h"
#include "tests/support/catch.h"

namespace sagejit::ir {
namespace {

constexpr std::string_view kStart =
    "  %0:i64 = param @x\n"
    "  %1:i32 = param @n\n"
    "  %2:i32 = tid\n"
    "  %3:f32 = f32.s32 %1\n"
    "  %4:pred = lt.s32 %1, 8\n";

// What a pass makes of `lines` behind an address %0, integers %1 and %2, an f32 %3 and a predicate
// %4, which it may not remove. Both verify.
template <typename Pass>
std::string after(Pass pass, std::string_view lines) {
  constexpr std::string_view kHead = "kernel @k(x: i64, n: i32) threads 128 min_blocks 1 {\n";
  constexpr std::string_view kUses =
      "  st.global.b32 %0, 0, %2\n  st.global.f32 %0, 4, %3\n  if %4 {\n    warp.sync\n  }\n";
  const Function function = parse(fmt::format("{}{}{}{}}}\n", kHead, kStart, kUses, lines));
  verify(function, 90);
  const Function result = pass(function);
  verify(result, 90);
  const std::string text = print(result), start = fmt::format("{}{}{}", kHead, kStart, kUses);
  REQUIRE(text.substr(0, start.size()) == start);
  return text.substr(start.size(), text.size() - start.size() - 2);
}

}  // namespace

TEST_CASE("forward_variables: a known value is used directly") {
  CHECK(after(forward_variables,
              "  $10:i32 = var %1\n"
              "  %11:i32 = get $10\n"
              "  st.global.b32 %0, 0, %11\n"
              "  set $10, 7\n"
              "  %12:i32 = get $10\n"
              "  st.global.b32 %0, 4, %12\n") ==
        "  $10:i32 = var %1\n"
        "  st.global.b32 %0, 0, %1\n"
        "  set $10, 7\n"
        "  st.global.b32 %0, 4, 7\n");
}

TEST_CASE("forward_variables: what was read is known until it is written") {
  CHECK(after(forward_variables,
              "  $10:i32 = var 0\n"
              "  for %11:i32 = 0 to 4 step 1 {\n"
              "    %12:i32 = get $10\n"
              "    %13:i32 = get $10\n"
              "    %14:i32 = add.i32 %12, %13\n"
              "    set $10, %14\n"
              "  }\n"
              "  %15:i32 = get $10\n"
              "  st.global.b32 %0, 0, %15\n") ==
        "  $10:i32 = var 0\n"
        "  for %11:i32 = 0 to 4 step 1 {\n"
        "    %12:i32 = get $10\n"
        "    %14:i32 = add.i32 %12, %12\n"
        "    set $10, %14\n"
        "  }\n"
        "  %15:i32 = get $10\n"
        "  st.global.b32 %0, 0, %15\n");
}

TEST_CASE("forward_variables: a branch knows what came before, and hides what it writes") {
  CHECK(after(forward_variables,
              "  $10:i32 = var 5\n"
              "  $11:i32 = var 6\n"
              "  if %4 {\n"
              "    %12:i32 = get $10\n"
              "    set $10, 1\n"
              "    st.global.b32 %0, 0, %12\n"
              "  } else {\n"
              "    %13:i32 = get $10\n"
              "    st.global.b32 %0, 0, %13\n"
              "  }\n"
              "  %14:i32 = get $10\n"
              "  %15:i32 = get $11\n"
              "  st.global.v2.b32 %0, 0, %14, %15\n") ==
        "  $10:i32 = var 5\n"
        "  $11:i32 = var 6\n"
        "  if %4 {\n"
        "    set $10, 1\n"
        "    st.global.b32 %0, 0, 5\n"
        "  } else {\n"
        "    st.global.b32 %0, 0, 5\n"
        "  }\n"
        "  %14:i32 = get $10\n"
        "  st.global.v2.b32 %0, 0, %14, 6\n");
}

TEST_CASE("forward_variables: ties, products and waits leave values unknown") {
  const std::string lines =
      "  $10:i32 = var 0\n"
      "  $11:i32 = var 0\n"
      "  tie $10\n"
      "  %12:i32 = get $10\n"
      "  wgmma.f16.f16 $10, $11, %0, %0, 1, 1\n"
      "  wgmma.commit\n"
      "  wgmma.wait 0, $10, $11\n"
      "  %13:i32 = get $10\n"
      "  %14:i32 = get $11\n"
      "  st.global.v4.b32 %0, 0, %12, %13, %14, 0\n";
  CHECK(after(forward_variables, lines) == lines);
}

TEST_CASE("remove_dead: what nothing uses goes, and then what only that used") {
  CHECK(after(remove_dead,
              "  %10:i32 = add.i32 %1, 1\n"
              "  %11:i32 = mul.i32 %10, %10\n"
              "  %12:i32 = ld.global.b32 %0, 0\n"
              "  if %4 {\n"
              "    %13:i32 = add.i32 %1, 2\n"
              "  }\n") == "");
}

TEST_CASE("remove_dead: effects stay") {
  const std::string lines =
      "  %10:i32 = atom.global.add.i32 %0, 0, 1\n"
      "  %11:i32 = shfl.idx %1, 0\n"
      "  %12:i32 = ld.acquire.global.b32 %0, 0\n"
      "  for %13:i32 = 0 to 4 step 1 {\n"
      "    barrier\n"
      "  }\n";
  CHECK(after(remove_dead, lines) == lines);
}

TEST_CASE("remove_dead: a write that the next one hides") {
  CHECK(after(remove_dead,
              "  $10:i32 = var 0\n"
              "  tie $10\n"
              "  set $10, 1\n"
              "  set $10, 2\n"
              "  %11:i32 = get $10\n"
              "  st.global.b32 %0, 0, %11\n"
              "  set $10, 3\n") ==
        "  $10:i32 = var 0\n"
        "  tie $10\n"
        "  set $10, 2\n"
        "  %11:i32 = get $10\n"
        "  st.global.b32 %0, 0, %11\n");
}

TEST_CASE("remove_dead: a variable begins with the first value that is read") {
  CHECK(after(remove_dead,
              "  $10:i32 = var 0\n"
              "  st.global.b32 %0, 0, %1\n"
              "  set $10, %1\n"
              "  %11:i32 = get $10\n"
              "  st.global.b32 %0, 0, %11\n") ==
        "  st.global.b32 %0, 0, %1\n"
        "  $10:i32 = var %1\n"
        "  %11:i32 = get $10\n"
        "  st.global.b32 %0, 0, %11\n");
  // Not where a branch may pass the first write by, nor where what follows would not see it.
  const std::string in_branch =
      "  $10:i32 = var 0\n"
      "  if %4 {\n"
      "    set $10, %1\n"
      "    %11:i32 = get $10\n"
      "    st.global.b32 %0, 0, %11\n"
      "  }\n";
  CHECK(after(remove_dead, in_branch) == in_branch);
  CHECK(after(remove_dead, "  $10:i32 = var 0\n  set $10, 1\n") == "");
}

TEST_CASE("remove_dead: what the next iteration reads, and a loop's condition, are in use") {
  const std::string carried =
      "  $10:i32 = var 0\n"
      "  for %11:i32 = 0 to 4 step 1 {\n"
      "    %12:i32 = get $10\n"
      "    st.global.b32 %0, 0, %12\n"
      "    set $10, %11\n"
      "  }\n";
  CHECK(after(remove_dead, carried) == carried);
  const std::string condition =
      "  $10:i32 = var 1\n"
      "  while $10 {\n"
      "    set $10, 0\n"
      "  }\n";
  CHECK(after(remove_dead, condition) == condition);
  // By way of another variable, two iterations later.
  const std::string passed_on =
      "  $10:i32 = var 0\n"
      "  $11:i32 = var 0\n"
      "  for %12:i32 = 0 to 4 step 1 {\n"
      "    %13:i32 = get $10\n"
      "    st.global.b32 %0, 0, %13\n"
      "    %14:i32 = get $11\n"
      "    set $10, %14\n"
      "    set $11, %12\n"
      "  }\n";
  CHECK(after(remove_dead, passed_on) == passed_on);
  // In a loop within.
  const std::string within =
      "  $10:i32 = var 0\n"
      "  for %11:i32 = 0 to 4 step 1 {\n"
      "    %12:i32 = get $10\n"
      "    for %13:i32 = 0 to 4 step 1 {\n"
      "      st.global.b32 %0, 0, %12\n"
      "    }\n"
      "    set $10, %11\n"
      "  }\n";
  CHECK(after(remove_dead, within) == within);
  // Not what only its own renewal reads.
  const std::string idle =
      "  $10:i32 = var 0\n"
      "  for %11:i32 = 0 to 4 step 1 {\n"
      "    %12:i32 = get $10\n"
      "    %13:i32 = add.i32 %12, 1\n"
      "    set $10, %13\n"
      "  }\n";
  CHECK(after(remove_dead, idle) == "  for %11:i32 = 0 to 4 step 1 {\n  }\n");
}

TEST_CASE("remove_dead: a product's accumulators are in use until it is waited for") {
  const std::string lines =
      "  $10:i32 = var 0\n"
      "  $11:i32 = var 0\n"
      "  wgmma.f16.f16 $10, $11, %0, %0, 1, 1\n"
      "  wgmma.commit\n"
      "  wgmma.wait 0, $10, $11\n";
  CHECK(after(remove_dead, lines) == lines);
}

TEST_CASE("fold_constants: constants, identities and sums of several constants") {
  const auto folded = [](std::string_view lines, std::string_view value) {
    INFO(lines);
    CHECK(after(fold_constants, fmt::format("{}  st.global.b32 %0, 0, %20\n", lines)) == value);
  };
  folded("  %20:i32 = mul.i32 6, 7\n", "  st.global.b32 %0, 0, 42\n");
  folded("  %10:i32 = add.i32 3, 4\n  %20:i32 = shl.i32 %10, 32\n", "  st.global.b32 %0, 0, 0\n");
  folded("  %10:i32 = sub.i32 0, 1\n  %20:i32 = shr.u32 %10, 4\n",
         "  st.global.b32 %0, 0, 268435455\n");
  folded("  %20:i32 = or.i32 0, %1\n", "  st.global.b32 %0, 0, %1\n");
  folded("  %20:i32 = and.i32 %1, 0\n", "  st.global.b32 %0, 0, 0\n");
  folded("  %20:i32 = rem.u32 %1, 8\n", "  %20:i32 = and.i32 %1, 7\n  st.global.b32 %0, 0, %20\n");
  folded("  %20:i32 = div.u32 %1, 0\n", "  %20:i32 = div.u32 %1, 0\n  st.global.b32 %0, 0, %20\n");
  folded("  %10:i32 = add.i32 %1, 5\n  %11:i32 = sub.i32 %10, 7\n  %20:i32 = add.i32 2, %11\n",
         "  %10:i32 = add.i32 %1, 5\n  %11:i32 = add.i32 %1, -2\n  st.global.b32 %0, 0, %1\n");
  // A sum of shared-memory words wraps at 32 bits.
  folded("  %10:i32 = add.i32 %1, 2147483647\n  %20:i32 = add.i32 %10, 1\n",
         "  %10:i32 = add.i32 %1, 2147483647\n  %20:i32 = add.i32 %1, -2147483648\n"
         "  st.global.b32 %0, 0, %20\n");
}

TEST_CASE("fold_constants: 64 bits") {
  CHECK(after(fold_constants,
              "  %10:i64 = zext.i64 -1\n"
              "  %11:i64 = sext.i64 -1\n"
              "  %12:i64 = add.i64 %10, %11\n"
              "  %13:i64 = mul.i64 %12, 2L\n"
              "  %14:i64 = add.i64 %0, %13\n"
              "  %15:i64 = add.i64 %14, 4L\n"
              "  st.global.b32 %15, 0, %1\n") ==
        "  %14:i64 = add.i64 %0, 8589934588L\n"
        "  %15:i64 = add.i64 %0, 8589934592L\n"
        "  st.global.b32 %15, 0, %1\n");
}

TEST_CASE("fold_constants: floating point stays as it is") {
  const std::string lines =
      "  %10:f32 = add.f32 0f00000000, %3\n"
      "  %11:f32 = mul.f32 %10, 0f3f800000\n"
      "  %12:f32 = mul.f32 0f3f800000, 0f40000000\n"
      "  st.global.v2.f32 %0, 0, %11, %12\n";
  CHECK(after(fold_constants, lines) == lines);
}

TEST_CASE("merge_common: the same operation on the same operands, in either order") {
  CHECK(after(merge_common,
              "  %10:i32 = add.i32 %1, %2\n"
              "  %11:i32 = add.i32 %2, %1\n"
              "  %12:i32 = sub.i32 %1, %2\n"
              "  %13:i32 = sub.i32 %2, %1\n"
              "  %14:i32 = mul.i32 %11, %12\n"
              "  %15:i32 = mul.i32 %10, %12\n"
              "  st.global.v4.b32 %0, 0, %11, %13, %14, %15\n") ==
        "  %10:i32 = add.i32 %1, %2\n"
        "  %12:i32 = sub.i32 %1, %2\n"
        "  %13:i32 = sub.i32 %2, %1\n"
        "  %14:i32 = mul.i32 %10, %12\n"
        "  st.global.v4.b32 %0, 0, %10, %13, %14, %14\n");
}

TEST_CASE("merge_common: a branch uses what came before it, nothing what a branch computed") {
  CHECK(after(merge_common,
              "  %10:i32 = add.i32 %1, 9\n"
              "  if %4 {\n"
              "    %11:i32 = add.i32 %1, 9\n"
              "    %12:i32 = add.i32 %1, 8\n"
              "    st.global.v2.b32 %0, 0, %11, %12\n"
              "  } else {\n"
              "    %13:i32 = add.i32 %1, 8\n"
              "    st.global.v2.b32 %0, 0, %10, %13\n"
              "  }\n"
              "  %14:i32 = add.i32 %1, 8\n"
              "  st.global.b32 %0, 0, %14\n") ==
        "  %10:i32 = add.i32 %1, 9\n"
        "  if %4 {\n"
        "    %12:i32 = add.i32 %1, 8\n"
        "    st.global.v2.b32 %0, 0, %10, %12\n"
        "  } else {\n"
        "    %13:i32 = add.i32 %1, 8\n"
        "    st.global.v2.b32 %0, 0, %10, %13\n"
        "  }\n"
        "  %14:i32 = add.i32 %1, 8\n"
        "  st.global.b32 %0, 0, %14\n");
}

TEST_CASE("merge_common: a loop computes for itself, and floating point is not kept for later") {
  const std::string lines =
      "  %10:i32 = add.i32 %1, 9\n"
      "  for %11:i32 = 0 to 4 step 1 {\n"
      "    %12:i32 = add.i32 %1, 9\n"
      "    st.global.v2.b32 %0, 0, %11, %12\n"
      "  }\n"
      "  %13:f32, %14:f32 = unpack.f16x2 %10\n"
      "  %15:f32, %16:f32 = unpack.f16x2 %10\n"
      "  st.global.v2.f32 %0, 0, %13, %15\n";
  CHECK(after(merge_common, lines) == lines);
}

TEST_CASE("merge_common: what reads memory, or is said to be read again, is") {
  const std::string lines =
      "  %10:i32 = ld.global.b32 %0, 0\n"
      "  %11:i32 = ld.global.b32 %0, 0\n"
      "  %12:i32 = tid.again\n"
      "  %13:i32 = tid.again\n"
      "  st.global.v4.b32 %0, 0, %10, %11, %12, %13\n";
  CHECK(after(merge_common, lines) == lines);
}

TEST_CASE("hoist_invariants: what is the same in every iteration comes before the loop") {
  CHECK(after(hoist_invariants,
              "  for %10:i32 = 0 to %1 step 1 {\n"
              "    %11:i32 = shr.u32 %2, 4\n"
              "    %12:i32 = add.i32 %11, %10\n"
              "    %13:i64 = zext.i64 %11\n"
              "    %14:i64 = add.i64 %0, %13\n"
              "    st.global.b32 %14, 0, %12\n"
              "  }\n") ==
        "  %11:i32 = shr.u32 %2, 4\n"
        "  %13:i64 = zext.i64 %11\n"
        "  %14:i64 = add.i64 %0, %13\n"
        "  for %10:i32 = 0 to %1 step 1 {\n"
        "    %12:i32 = add.i32 %11, %10\n"
        "    st.global.b32 %14, 0, %12\n"
        "  }\n");
}

TEST_CASE("hoist_invariants: out of inner loops as far as it goes, not out of branches") {
  CHECK(after(hoist_invariants,
              "  for %10:i32 = 0 to 4 step 1 {\n"
              "    for %11:i32 = 0 to 4 step 1 {\n"
              "      %12:i32 = add.i32 %2, 7\n"
              "      %13:i32 = add.i32 %10, %12\n"
              "      st.global.b32 %0, 0, %13\n"
              "      if %4 {\n"
              "        %14:i32 = mul.i32 %2, %1\n"
              "        st.global.b32 %0, 4, %14\n"
              "      }\n"
              "    }\n"
              "  }\n") ==
        "  %12:i32 = add.i32 %2, 7\n"
        "  for %10:i32 = 0 to 4 step 1 {\n"
        "    %13:i32 = add.i32 %10, %12\n"
        "    for %11:i32 = 0 to 4 step 1 {\n"
        "      st.global.b32 %0, 0, %13\n"
        "      if %4 {\n"
        "        %14:i32 = mul.i32 %2, %1\n"
        "        st.global.b32 %0, 4, %14\n"
        "      }\n"
        "    }\n"
        "  }\n");
}

TEST_CASE("hoist_invariants: reads, variables, floating point and what has an effect stay") {
  constexpr std::string_view kLines =
      "  $10:i32 = var 0\n"
      "  for %11:i32 = 0 to 4 step 1 {\n"
      "    %12:i32 = ld.global.b32 %0, 0\n"
      "    %13:i32 = get $10\n"
      "    %14:f32 = add.f32 %3, %3\n"
      "    %15:i32 = shfl.idx %2, 0\n"
      "    %16:i32 = add.i32 %13, %15\n"
      "    set $10, %16\n"
      "    st.global.b32 %0, 0, %12\n"
      "    st.global.f32 %0, 4, %14\n"
      "  }\n";
  CHECK(after(hoist_invariants, kLines) == kLines);
}

TEST_CASE("fold_addresses: constants become part of loads and stores") {
  CHECK(after(fold_addresses,
              "  %10:i64 = add.i64 %0, 16L\n"
              "  %11:i64 = add.i64 %10, -4L\n"
              "  %12:i32 = add.i32 %1, 8\n"
              "  %13:i32 = ld.global.b32 %11, 4\n"
              "  st.shared.b32 %12, 100, %13\n"
              "  cp.async %12, 1, %10, 2, %13\n"
              "  mbarrier.arrive %12\n") ==
        "  %10:i64 = add.i64 %0, 16L\n"
        "  %11:i64 = add.i64 %10, -4L\n"
        "  %12:i32 = add.i32 %1, 8\n"
        "  %13:i32 = ld.global.b32 %0, 16\n"
        "  st.shared.b32 %1, 108, %13\n"
        "  cp.async %1, 9, %0, 18, %13\n"
        "  mbarrier.arrive %12\n");
}

TEST_CASE("fold_addresses: as far as the instruction has room") {
  const std::string lines =
      "  %10:i64 = add.i64 %0, 2147483647L\n"
      "  %11:i32 = ld.global.b32 %10, 4\n"
      "  %12:i64 = add.i64 %0, -2147483648L\n"
      "  %13:i32 = ld.global.b32 %12, -4\n"
      "  st.global.v2.b32 %0, 0, %11, %13\n";
  CHECK(after(fold_addresses, lines) == lines);
}

}  // namespace sagejit::ir
