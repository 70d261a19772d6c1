#include "compiler/explain.h"

#include <map>

#include "compiler/sema/resolve.h"
#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {
namespace {

CompileRequest request(std::string_view entries, std::string_view target) {
  CompileRequest request;
  request.variant = resolve_variants("v.attn", fmt::format("v {{ {} }}", entries)).at(0);
  request.target = &find_target(target);
  return request;
}

// Of the main loop, its branches that a vote guards included.
std::map<std::string, int> all_operations(const Explanation& explanation) {
  const cost::LoopCount& loop = *cost::main_loop(explanation.kernels.back().loops);
  std::map<std::string, int> result;
  for (const auto* ops : {&loop.ops, &loop.rare}) {
    for (const cost::OpCount& op : *ops) result[cost::name_of(op)] += op.count;
  }
  return result;
}

// The main loop of both kernels, against the machine code that ptxas 13.0 makes of it, whose
// instructions were counted with nvdisasm. Two negations are FADDs, too.
TEST_CASE("operations of the mma.sync kernel's main loop are those of its machine code") {
  CompileRequest sage1 = request(
      "head_dim = 128; smooth_k = mean; q = int8 per block(128); k = int8 per block(64); "
      "pv_accumulator = f16 + f32 every 64",
      "sm_80");
  sage1.schedule =
      parse_schedule("block_m=64 block_n=64 warps=4 stages=2 q_in_registers=1 blocks_per_sm=2");
  std::map<std::string, int> ops = all_operations(explain(sage1, {}));
  CHECK(ops["mma.s8 m16n8k32"] == 32);                // IMMA.16832.S8.S8
  CHECK(ops["mma.f16.f16 m16n8k16"] == 64);           // HMMA.16816.F16
  CHECK(ops["ex2.approx"] == 36);                     // MUFU.EX2
  CHECK(ops["add.f32"] + ops["sub.f32"] + 2 == 182);  // FADD
  CHECK(ops["mul.f32"] == 110);                       // FMUL
  CHECK(ops["fma.f32"] == 36);                        // FFMA
  CHECK(ops["unpack.f16x2"] * 2 == 64);               // HADD2.F32
  CHECK(ops["pack.f16x2"] == 16);                     // F2FP.PACK_AB
  CHECK(ops["max.s32"] == 30);                        // IMNMX
  CHECK(ops["ldmatrix.x4"] == 16);                    // LDSM.16.M88.4
  CHECK(ops["ldmatrix.x4.trans"] == 32);              // LDSM.16.MT88.4
  CHECK(ops["cp.async"] == 12);                       // LDGSTS.E.BYPASS.128
}

TEST_CASE("operations of the wgmma kernel's main loop are those of its machine code") {
  CompileRequest sage2 = request(
      "head_dim = 128; smooth_k = mean; smooth_v = mean; q = int8 per thread(32); k = int8 per "
      "thread(64); "
      "p = e4m3 range 16; v = e4m3 per channel; rescale_threshold = 4; pv_accumulator = f32",
      "sm_90a");
  sage2.schedule = parse_schedule(
      "wgmma=1 block_m=192 block_n=128 warps=12 stages=5 q_in_registers=0 ping_pong=1");
  const Explanation explanation = explain(sage2, {});
  std::map<std::string, int> ops = all_operations(explanation);
  CHECK(ops["wgmma.s8 m64n128k32"] == 4);                         // IGMMA.64x128x32.S8.S8
  CHECK(ops["wgmma.e4m3.f32 m64n128k32 (A in registers)"] == 4);  // QGMMA.64x128x32.F32.E4M3.E4M3
  CHECK(ops["ex2.approx"] == 68);                                 // MUFU.EX2
  CHECK(ops["add.f32"] + ops["sub.f32"] + 2 == 216);              // FADD
  CHECK(ops["mul.f32"] == 146);                                   // FMUL
  CHECK(ops["fma.f32"] == 64 + 72);                               // FFMA; the first bias scores
  CHECK(ops["pack.e4m3x4"] * 2 == 32);                            // F2FP.SATFINITE.E4M3
  CHECK(ops["max.s32"] == 2 * 28 + 4);                            // VIMNMX3, VIMNMX
  // K and V of 128 tokens and 128 bytes each.
  CHECK(explanation.kernels.back().loops.front().bulk_copy_bytes == 2 * 128 * 128);
  // 2 192 128 (128 + 128) operations at 8192 a clock; 192 128 exponentials at 16.
  CHECK(explanation.roofline.tile_clocks[static_cast<size_t>(cost::Unit::kTensor)] == 1536);
  CHECK(explanation.roofline.tile_clocks[static_cast<size_t>(cost::Unit::kSpecial)] == 1536);
}

TEST_CASE("codes written directly need no exponential, and the limit moves") {
  const char* const kRounded =
      "head_dim = 64; p = e4m3 range 16; rescale_threshold = 4; pv_accumulator = f32";
  const char* const kDirect =
      "head_dim = 64; p = e4m3 range 16 direct; row_sum = quantized; rescale_threshold = 4; "
      "pv_accumulator = f32";
  const Explanation rounded = explain(request(kRounded, "sm_90a"), {});
  const Explanation direct = explain(request(kDirect, "sm_90a"), {});
  CHECK(rounded.roofline.binding == cost::Unit::kSpecial);
  CHECK(direct.roofline.binding != cost::Unit::kSpecial);
  CHECK(direct.roofline.bound_tflops > rounded.roofline.bound_tflops);
}

TEST_CASE("bytes are those of the problem") {
  const ExplainedProblem problem = {2, 8, 4, 1024, 2048};
  const Explanation e = explain(request("head_dim = 64; smooth_k = mean", "sm_80"), problem);
  const double q = 2 * 8 * 1024 * 64, k = 2 * 4 * 2048 * 64;
  const double scales = 4.0 * (2 * 8 * 1024 / 128 + 2 * 4 * 2048 / 64);
  CHECK(e.traffic.quantize_bytes == 3 * (q + k) + scales);
  CHECK(e.traffic.attend_bytes == q + k + scales + 2 * k + 2 * q);  // and V, and O
  CHECK(e.operations == 4.0 * 2 * 8 * 1024 * 2048 * 64);
}

TEST_CASE("what cannot be compiled cannot be explained") {
  CHECK(thrown_by([] { explain(request("head_dim = 64; softcap = 30", "sm_80"), {}); }).kind() ==
        ErrorKind::kUnsupported);
  CompileRequest bad = request("head_dim = 64", "sm_80");
  bad.schedule = parse_schedule("block_m=100");
  CHECK(thrown_by([&] { explain(bad, {}); }).kind() == ErrorKind::kUnsupported);
}

TEST_CASE("every generated kernel of the family can be explained on every target") {
  for (const Target& target : all_targets()) {
    for (const char* entries :
         {"head_dim = 16", "head_dim = 72; value_head_dim = 40; lse = on",
          "head_dim = 128; mask = window(10, 3); q = int8 per token; k = int8 per token"}) {
      CAPTURE(target.name, entries);
      const Explanation e = explain(request(entries, target.name), {});
      CHECK((e.roofline.bound_tflops > 0) == (e.throughput != nullptr));
      CHECK((e.throughput != nullptr) == (target.sm / 10 != 10));  // not published
      CHECK(e.kernels.size() == e.plan.launches.size());
    }
  }
}

}  // namespace
}  // namespace sagejit
