#include "compiler/sema/check.h"

#include <algorithm>
#include <cmath>

#include "compiler/sema/print.h"
#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"
#include "tests/support/catch.h"
#include "tests/unit/sema/random_variant.h"

namespace sagejit {
namespace {

Variant resolve(std::string_view body) {
  return resolve_variants("t", "x { head_dim = 64\n" + std::string(body) + "\n}").at(0);
}

bool is_supported(const Variant& v, const Target& target) {
  try {
    check_supported(v, target);
    return true;
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kUnsupported);
    return false;
  }
}

// On how many of the targets.
size_t num_supporting(const Variant& v) {
  const auto targets = all_targets();
  return static_cast<size_t>(std::count_if(targets.begin(), targets.end(),
                                           [&](const Target& t) { return is_supported(v, t); }));
}

std::string unsupported_message(const Variant& v, const Target& target) {
  try {
    check_supported(v, target);
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

}  // namespace

TEST_CASE("what the generators make is supported on every target") {
  for (const char* body : {"",
                           "head_dim = 64",
                           "value_head_dim = 16",
                           "value_head_dim = 256",
                           "input = bf16",
                           "output = f32",
                           "lse = on",
                           "smooth_k = mean",
                           "row_sum = quantized",
                           "scale = 3.5",
                           "mask = causal(top_left)",
                           "mask = causal(bottom_right)",
                           "mask = window(0, 0)",
                           "q = int8 per tensor",
                           "q = int8 per head",
                           "q = int8 per block(16)",
                           "q = int8 per warp",
                           "q = int8 per thread(16)",
                           "q = int8 per token",
                           "k = int8 per tensor",
                           "k = int8 per block(128)",
                           "k = int8 per warp(48)",
                           "k = int8 per thread",
                           "q = int4",
                           "q = int4 per thread\nk = int4 per token",
                           "smooth_q = mean",
                           "smooth_q = mean per block(64)\nq = int4",
                           "smooth_q = mean per block(320)",
                           "hadamard = on",
                           "pv_accumulator = f16",
                           "pv_accumulator = f16 + f32 every 16",
                           "pv_accumulator = f32 + f32 every 128"}) {
    INFO(body);
    // head_dim is in the frame already.
    const Variant v = resolve(std::string_view(body) == "head_dim = 64" ? "" : body);
    CHECK(num_supporting(v) == all_targets().size());
  }
}

TEST_CASE("what no generator makes is not supported") {
  for (const char* body : {"input = f32",
                           "q = e4m3\nqk_accumulator = f16",
                           "q = int8 per block(136)",
                           "k = int8 per block(24)",
                           "k = int8 per thread(8)",
                           "smooth_q = mean per block(96)",
                           "scale = -3.5",
                           "softcap = 30",
                           "alibi = on",
                           "sinks = on",
                           "score = s + 1",
                           "mask = k < 7",
                           "mask = tensor(bool)",
                           "mask = tensor(additive)",
                           "p = f16 range 2",
                           "v = e5m2 per head",
                           "v = int8 per head",
                           "v = bf16",
                           "v = e4m3 per head",
                           "p = e4m3 range 4\nv = e4m3 range 2.25\npv_accumulator = f16",
                           "v = e4m3\npv_accumulator = f32 + f32 every 96",
                           "v = int8\npv_accumulator = s32 + f32 every 256",
                           "input = bf16\nv = f16\npv_accumulator = f16",
                           "smooth_v = mean",
                           "pv_accumulator = f16 + f32 every 48",
                           "pv_accumulator = f32 + f32 every 256",
                           "exp2_polynomial = 0.5",
                           "structure = varlen",
                           "structure = paged(64)"}) {
    INFO(body);
    CHECK(num_supporting(resolve(body)) == 0);
  }
}

TEST_CASE("fp4 is for sm_120a alone, and P takes Q and K with it") {
  for (const char* body :
       {"q = fp4", "q = fp4\nv = fp4", "q = fp4\np = fp4 range 1\nv = fp4 range 4",
        "q = fp4\nv = e4m3", "q = fp4\nv = int8",
        "q = fp4\nv = fp4\nsmooth_q = mean\nsmooth_k = mean\nhadamard = on\nlse = on",
        "q = fp4\nv = fp4\npv_accumulator = f32 + f32 every 128"}) {
    INFO(body);
    const Variant v = resolve(body);
    for (const Target& target : all_targets()) {
      INFO(target.name);
      CHECK((nearest_supported(v, target) == v) == target.fp4_mma);
      const Variant nearest = nearest_supported(v, target);
      CHECK(nearest_supported(nearest, target) == nearest);
      if (target.fp4_mma) continue;
      CHECK_THAT(find_limits(v, target).at(0), Catch::Contains("fp4 products need sm_120a"));
    }
  }
  for (const char* body :
       {"v = fp4", "q = fp4\nv = fp4\nrow_sum = quantized", "q = fp4\nv = fp4\nsmooth_v = mean",
        "q = fp4\nv = fp4\npv_accumulator = f32 + f32 every 256"}) {
    INFO(body);
    CHECK(num_supporting(resolve(body)) == 0);
  }
}

TEST_CASE("what needs V prepared in 16 bits, or long intervals, is supported with wgmma alone") {
  for (const char* body :
       {"v = e4m3\npv_accumulator = f32 + f32 every 256", "input = bf16\nv = f16",
        "input = bf16\np = f16\npv_accumulator = f32 + f32 every 32"}) {
    INFO(body);
    const Variant v = resolve(body);
    for (const Target& target : all_targets()) {
      INFO(target.name);
      CHECK(is_supported(v, target) == target.wgmma);
    }
  }
}

TEST_CASE("8-bit floats are supported where the target has products of them") {
  for (const char* body :
       {"v = e4m3", "p = e4m3 range 16\nrescale_threshold = 4",
        "p = e4m3 range 0.5\nv = e4m3 range 2.25", "v = e4m3\npv_accumulator = f32 + f32 every 32",
        "v = e4m3\npv_accumulator = f32 + f32 every 128", "v = e4m3\ninput = bf16",
        "v = e4m3\nsmooth_v = mean", "v = e4m3\nrow_sum = quantized", "q = e4m3",
        "q = e4m3 per token\nk = e4m3 per thread(64)\nsmooth_q = mean\nsmooth_k = mean",
        "q = e4m3\nhadamard = on\np = int8", "v = e5m2", "p = e5m2 range 57344\nv = e4m3",
        "p = e4m3 range 16\nv = e5m2\nsmooth_v = mean\nrow_sum = quantized",
        "p = e5m2 range 16\nrescale_threshold = 11",
        "p = e4m3 range 16 direct\nrow_sum = quantized\nrescale_threshold = 4"}) {
    INFO(body);
    const Variant v = resolve(body);
    for (const Target& target : all_targets()) {
      INFO(target.name);
      CHECK(is_supported(v, target) == (target.wgmma || target.native_fp8_mma));
    }
  }
}

TEST_CASE("sums of e4m3 products in f16 are supported by mma.sync alone, on two levels") {
  for (const char* ranges :
       {"p = e4m3 range 448\nv = e4m3 range 2.25", "p = e4m3 range 224\nv = e4m3 range 4.5",
        "p = e4m3 range 112\nv = e4m3 range 9", "p = e5m2 range 112\nv = e4m3 range 9",
        "p = e5m2 range 448\nv = e5m2 range 2"}) {
    const Variant v = resolve(std::string(ranges) + "\npv_accumulator = f16 + f32 every 64");
    for (const Target& target : all_targets()) {
      INFO(target.name << " " << ranges);
      CHECK(is_supported(v, target) == (target.native_fp8_mma && !target.wgmma));
    }
  }
}

TEST_CASE("int8 P and V, and maxima that are renewed late, are supported everywhere") {
  for (const char* body :
       {"v = int8", "p = uint8", "p = uint8 range 15\nrescale_threshold = 4",
        "p = int8 range 100\nv = int8 range 63", "v = int8\npv_accumulator = s32 + f32 every 128",
        "v = int8\ninput = bf16\nsmooth_v = mean", "rescale_threshold = 8",
        "rescale_threshold = 8\nrow_sum = quantized"}) {
    INFO(body);
    CHECK(num_supporting(resolve(body)) == all_targets().size());
  }
}

TEST_CASE("int4 without int4 tensor cores is cautioned about") {
  const Variant v = resolve("q = int4 per thread"), eight = resolve("q = int8 per thread");
  for (const Target& target : all_targets()) {
    INFO(target.name);
    const std::vector<std::string> cautions = cautions_about(v, target);
    CHECK(cautions.size() == (target.native_s4_mma ? 0 : 1));
    CHECK(cautions_about(eight, target).empty());
  }
  CHECK_THAT(cautions_about(v, find_target("sm_120")).at(0),
             Catch::StartsWith("sm_120 has no int4 tensor cores: ") &&
                 Catch::Contains("\n  note: write q = int8 and k = int8"));
  CHECK(cautions_about(resolve("q = int4\nv = e4m3"), find_target("sm_90a")).size() == 2);
}

TEST_CASE("sums of integer P are exact") {
  for (const char* p : {"p = int8", "p = uint8 range 31"}) {
    const Variant v = resolve(std::string(p) + "\nrow_sum = quantized");
    for (const Target& target : all_targets()) {
      INFO(target.name << " " << p);
      const std::string message = unsupported_message(v, target);
      CHECK_THAT(message, Catch::Contains("  row_sum = quantized: the sum must be exact where P is "
                                          "int8, uint8 or fp4: such codes carry no NaN"));
      CHECK_THAT(message, Catch::EndsWith("lines instead:\n  row_sum = exact"));
    }
  }
}

TEST_CASE("the message names each limit and the lines that mend it") {
  const Variant v = resolve("v = e4m3\npv_accumulator = f32 + f32 every 96");
  CHECK(unsupported_message(v, find_target("sm_86")) ==
        "variant `x` is valid, but no generator makes it for sm_86 yet\n"
        "  p = e4m3 range 448 rounded: without fp8 products, P must be int8 or uint8, or have the "
        "type of the input, and range 1\n"
        "  pv_accumulator = f32 + f32 every 96: the interval must be 32, 64 or 128 keys with 8-bit "
        "P\n"
        "the nearest variant that is supported has these lines instead:\n"
        "  p = f16 range 1\n"
        "  v = f16\n"
        "  pv_accumulator = f32 + f32 every 64");
}

TEST_CASE("the nearest supported variant is valid, supported, and what the message says") {
  const Target& target = find_target(GENERATE("sm_80", "sm_89", "sm_90a"));
  Rng rng(3);
  for (int i = 0; i < 1000; ++i) {
    Variant v = random_variant(rng);
    v.name = "x";
    INFO(print_variant(v));
    const Variant nearest = nearest_supported(v, target);
    CHECK(find_contradictions(nearest).empty());
    CHECK(is_supported(nearest, target));
    CHECK(nearest_supported(nearest, target) == nearest);
    const std::string message = unsupported_message(v, target);
    CHECK(message.empty() == (nearest == v));
    if (message.empty()) continue;
    const std::string lines = message.substr(message.find("instead:") + 8);
    const std::vector<Variant> pasted =
        resolve_variants("pasted", print_variant(v) + "y : x {" + lines + "\n}\n");
    REQUIRE(pasted.size() == 2);
    CHECK(same_computation(pasted[1], nearest));
  }
}

TEST_CASE("8-bit P and V stay 8-bit where there is a kernel for them") {
  const Variant v = resolve("v = int8 per head\npv_accumulator = s32 + f32 every 96");
  for (const char* target : {"sm_80", "sm_90a"}) {
    CHECK(unsupported_message(v, find_target(target)) ==
          "variant `x` is valid, but no generator makes it for " + std::string(target) +
              " yet\n"
              "  v = int8 per head range 127: V must have the type of P (int8 for uint8, e4m3 or "
              "e5m2 for either) and, in 8 bits, be scaled per channel\n"
              "  pv_accumulator = s32 + f32 every 96: the interval must be 32, 64 or 128 keys with "
              "8-bit P\n"
              "the nearest variant that is supported has these lines instead:\n"
              "  v = int8 per channel range 127\n"
              "  pv_accumulator = s32 + f32 every 64");
  }
  const Variant wide = resolve("p = e5m2\nv = e5m2 per block range 2.25");
  const Variant nearest = nearest_supported(wide, find_target("sm_89"));
  CHECK(nearest.p == ProbabilityOperand{DType::kE5M2, 57344.0, false});
  CHECK(nearest.v.type == DType::kE5M2);
  CHECK(nearest.v.granularity == Granularity::kChannel);
  CHECK(nearest.v.range == 2.25);
}

TEST_CASE("one level of e4m3 sums is cautioned against where they keep 13 bits") {
  const auto cautions = [](const char* body, const char* target) {
    return !cautions_about(resolve(body), find_target(target)).empty();
  };
  for (const char* target : {"sm_89", "sm_90a"}) {
    INFO(target);
    CHECK(cautions("v = e4m3", target));
    CHECK(!cautions("v = e4m3\nsmooth_v = mean", target));
    CHECK(!cautions("v = e4m3\npv_accumulator = f32 + f32 every 64", target));
    CHECK(cautions("v = e5m2", target));
    CHECK(cautions("p = e5m2\nv = e4m3", target));
    CHECK(!cautions("v = int8", target));
    CHECK(!cautions("", target));
  }
  CHECK(!cautions("v = e4m3", "sm_120"));
}

TEST_CASE("e4m3 scores are cautioned against where int8 is faster, not for their 13 bits") {
  for (const char* target : {"sm_89", "sm_120"}) {
    INFO(target);
    const std::vector<std::string> cautions =
        cautions_about(resolve("q = e4m3"), find_target(target));
    REQUIRE(cautions.size() == 1);
    CHECK_THAT(cautions[0], Catch::EndsWith("write q and k = int8, which are finer, too"));
  }
  CHECK(cautions_about(resolve("q = e4m3"), find_target("sm_90a")).empty());
}

TEST_CASE("without fp8 products, e4m3 Q and K become int8") {
  const Variant v = resolve("q = e4m3 per token\nk = e4m3 per thread(64)");
  for (const char* target : {"sm_80", "sm_90"}) {
    CHECK_THAT(
        unsupported_message(v, find_target(target)),
        Catch::Contains("  q = e4m3 per token: without fp8 products, q must be int8 or int4") &&
            Catch::EndsWith("lines instead:\n  q = int8 per token\n  k = int8 per "
                            "thread(64)\n  qk_accumulator = s32"));
  }
}

TEST_CASE("a caution says what it rests on where that was not measured") {
  const auto caution = [](const char* target) {
    return cautions_about(resolve("v = e4m3"), find_target(target)).at(0);
  };
  CHECK_THAT(caution("sm_89"),
             Catch::Contains("(by published work, SageAttention 2; not measured"));
  CHECK_THAT(caution("sm_90a"), !Catch::Contains("published"));
}

TEST_CASE("variants made by a program are checked too") {
  Variant v = resolve("");
  CHECK_NOTHROW(check_valid(v));
  v.head_dim = 60;
  v.v.range = 2.0;
  v.mask.window_left = 3;
  CHECK_THROWS_WITH(check_valid(v),
                    "variant `x` contradicts itself\n"
                    "  head_dim: head_dim 60 is not a multiple of 8\n"
                    "    note: the nearest that work are 56 and 64\n"
                    "  mask: window bounds are set on a mask that is no window\n"
                    "    note: leave them 0\n"
                    "  v: V in f16 is not scaled, and has no range\n"
                    "    note: leave it 0");
}

TEST_CASE("forms without meaning are contradictions") {
  const auto contradicts = [](void (*change)(Variant&)) {
    Variant v = resolve("");
    change(v);
    return !find_contradictions(v).empty();
  };
  CHECK(contradicts([](Variant& v) { v.q.span = 0; }));
  CHECK(contradicts([](Variant& v) { v.k = {DType::kS8, Granularity::kToken, 16}; }));
  CHECK(contradicts([](Variant& v) { v.smooth_q_span = 16; }));
  CHECK(contradicts([](Variant& v) { v.smooth_q = Smoothing::kMean; }));
  CHECK(contradicts([](Variant& v) { v.mask.kind = MaskKind::kExpression; }));
  CHECK(contradicts([](Variant& v) { v.mask = {MaskKind::kExpression, 0, 0, {"(k < 7)"}}; }));
  CHECK(contradicts([](Variant& v) { v.score.expression = {"s"}; }));
  CHECK(contradicts([](Variant& v) { v.score.expression = {"k < 7"}; }));
  CHECK(contradicts([](Variant& v) { v.v.granularity = Granularity::kChannel; }));
  CHECK(contradicts([](Variant& v) { v.pv_accumulator.interval = 64; }));
  CHECK(contradicts([](Variant& v) { v.rescale_threshold = -1; }));
  CHECK(contradicts([](Variant& v) { v.rescale_threshold = std::nan(""); }));
  CHECK(contradicts([](Variant& v) { v.rescale_threshold = 16; }));  // P is f16
  CHECK(contradicts([](Variant& v) { v.structure.parameter = 64; }));
  CHECK(contradicts([](Variant& v) { v.input = DType::kS8; }));
}

TEST_CASE("ranges that fit f16 sums are the published ones") {
  // SageAttention 2++, table 2: products of the ranges below 65504 / 64.
  CHECK(find_contradictions(resolve("p = e4m3 range 448\nv = e4m3 range 2.25\n"
                                    "pv_accumulator = f16 + f32 every 64"))
            .empty());
  CHECK(find_contradictions(resolve("p = e4m3 range 224\nv = e4m3 range 4.5\n"
                                    "pv_accumulator = f16 + f32 every 64"))
            .empty());
}

}  // namespace sagejit
