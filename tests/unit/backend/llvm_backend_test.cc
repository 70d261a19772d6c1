#include "compiler/backend/llvm/llvm_backend.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <cmath>
#include <regex>
#include <span>
#include <thread>

#include "compiler/backend/assemble/report.h"
#include "compiler/backend/ptx/print_ptx.h"
#include "compiler/support/error.h"
#include "tests/support/catch.h"
#include "tests/unit/backend/find_llvm.h"
#include "tests/unit/backend/find_ptxas.h"
#include "tests/unit/backend/kernel_of_everything.h"
#include "tests/unit/emulator/emulate.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {
namespace {

using Catch::Contains;
using emulator::MemoryRange;
using emulator::test::Params;
using emulator::test::range;
using ir::Op;

ir::Function function_of(std::string_view lines) {
  return ir::parse(
      fmt::format("kernel @k(x: i64, n: i32) threads 128 min_blocks 3 {{\n"
                  "smem @first offset 0 bytes 64\nsmem @s offset 64 bytes 64\n"
                  "%0:i64 = param @x\n%1:i32 = param @n\n%2:i32 = smem @s\n%3:f32 = f32.s32 %1\n"
                  "%4:pred = lt.s32 %1, 8\n{}}}\n",
                  lines));
}

// The PTX of `lines` in a kernel with parameters %0 = x and %1 = n, the address %2 of shared
// memory, a number %3 and a predicate %4. Space is a single blank, registers are their kind alone.
std::string ptx_of(const Backend& llvm, std::string_view lines) {
  std::string text = llvm.to_ptx(function_of(lines), find_target("sm_90a"));
  text = std::regex_replace(text, std::regex("[ \t]+"), " ");
  return std::regex_replace(text, std::regex("%(r|rd|f|p|rs)[0-9]+"), "%$1");
}

// The same for one value %5, an i32 or f32, that is stored.
std::string ptx_of_value(const Backend& llvm, std::string_view line) {
  const std::string store = line.starts_with("%5:f32") ? "st.global.f32" : "st.global.b32";
  return ptx_of(llvm, fmt::format("{}\n{} %0, 0, %5\n", line, store));
}

size_t count(std::string_view text, std::string_view part) {
  size_t number = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++number;
  return number;
}

}  // namespace

TEST_CASE("llvm: a module says what it needs of target, launch and shared memory") {
  const auto llvm = find_llvm();
  if (!llvm) return;
  CHECK_THAT(llvm->name(), Catch::StartsWith("llvm 19.1."));
  CHECK(llvm->flags(find_target("sm_89")) ==
        std::vector<std::string>{"-mcpu=sm_89", "-mattr=+ptx80"});
  const std::string text = ptx_of_value(*llvm, "%5:i32 = add.i32 %2, 0");
  CHECK_THAT(text, Contains(".version 8.0\n.target sm_90a\n.address_size 64\n"));
  CHECK_THAT(text, Contains(".extern .shared .align 128 .b8 smem[];\n"));
  CHECK_THAT(text, Contains(".visible .entry k("));
  CHECK_THAT(text, Contains(".maxntid 128, 1, 1\n.minnctapersm 3\n"));
  CHECK_THAT(text, Contains("add.s32 %r, %r, 64;"));
  CHECK_THAT(llvm->to_ptx(function_of(""), find_target("sm_89")),
             Contains(".version 8.0\n.target sm_89\n"));
}

TEST_CASE("llvm: arithmetic is LLVM's, rounded as written and never contracted") {
  const auto llvm = find_llvm();
  if (!llvm) return;
  const std::string product =
      ptx_of(*llvm, "%5:f32 = mul.f32 %3, %3\n%6:f32 = add.f32 %5, %3\nst.global.f32 %0, 0, %6\n");
  CHECK_THAT(product, Contains("mul.rn.f32 %f, %f, %f;") && Contains("add.rn.f32 %f, %f, %f;"));
  CHECK_THAT(product, !Contains("fma") && !Contains("ftz"));
  CHECK_THAT(ptx_of_value(*llvm, "%5:f32 = fma.f32 %3, %3, 0f3f000000"),
             Contains("fma.rn.f32 %f, %f, %f, 0f3F000000;"));
  CHECK_THAT(ptx_of_value(*llvm, "%5:f32 = div.f32 0f40400000, %3"), Contains("div.rn.f32 %f, "));
  CHECK_THAT(ptx_of_value(*llvm, "%5:f32 = max.f32 %3, 0f40400000"), Contains("max.f32 %f, "));
  CHECK_THAT(ptx_of_value(*llvm, "%5:i32 = max.s32 %1, %2"), Contains("max.s32 %r, "));
  CHECK_THAT(ptx_of_value(*llvm, "%5:i32 = div.u32 %1, 7"), Contains("mul.hi.u32"));
  // What LLVM leaves undefined goes to the instruction.
  CHECK_THAT(ptx_of_value(*llvm, "%5:i32 = shl.i32 %1, %2"), Contains("shl.b32 %r, %r, %r;"));
  CHECK_THAT(ptx_of_value(*llvm, "%5:i32 = shr.u32 %1, 32"), Contains("inline asm\n shr.u32 "));
}

TEST_CASE("llvm: immediates are part of a hardware operation's text") {
  const auto llvm = find_llvm();
  if (!llvm) return;
  CHECK_THAT(ptx_of_value(*llvm, "%5:i32 = ld.shared.b32 %2, 12"),
             Contains("ld.shared.b32 %r, [%r+12];"));
  CHECK_THAT(ptx_of_value(*llvm, "%5:i32 = prmt %1, %2, 21554"),
             Contains("prmt.b32 %r, %r, %r, 21554;"));
  CHECK_THAT(ptx_of(*llvm, "st.global.b32 %0, -4, 7\n"), Contains("st.global.b32 [%rd+-4], %r;"));
  CHECK_THAT(ptx_of(*llvm, "cp.async.wait 2\n"), Contains("cp.async.wait_group 2;"));
}

TEST_CASE("llvm: what has an effect stays as often as it is written, and in order") {
  const auto llvm = find_llvm();
  if (!llvm) return;
  const std::string text = ptx_of(*llvm,
                                  "st.global.b32 %0, 0, %1\n%5:i32 = ld.global.b32 %0, 0\nbarrier\n"
                                  "barrier\nst.global.b32 %0, 0, %1\nst.global.b32 %0, 4, %5\n");
  CHECK(count(text, "st.global.b32") == 3);
  CHECK(count(text, "bar.sync 0;") == 2);
  CHECK(text.find("ld.global") < text.find("bar.sync"));
  CHECK(text.rfind("bar.sync") < text.find("st.global.b32", text.find("bar.sync")));
  // What has none is made once, or not at all.
  const std::string twice =
      ptx_of(*llvm,
             "%5:f32 = ex2.approx %3\n%6:f32 = ex2.approx %3\n%7:f32 = "
             "add.f32 %5, %6\n%8:f32 = lg2.approx %3\nst.global.f32 %0, 0, %7\n");
  CHECK(count(twice, "ex2.approx") == 1);
  CHECK(count(twice, "lg2.approx") == 0);
}

TEST_CASE("llvm: loops test at their end and are never unrolled") {
  const auto llvm = find_llvm();
  if (!llvm) return;
  for (const char* lines : {"for %5:i32 = 0 to 4 step 2 {\nst.global.b32 %0, 0, %5\n}\n",
                            "$5:i32 = var %1\nwhile $5 {\n%6:i32 = get $5\n%7:i32 = sub.i32 %6, 1\n"
                            "set $5, %7\nst.global.b32 %0, 0, %7\n}\n"}) {
    const std::string text = ptx_of(*llvm, lines);
    CHECK_THAT(text, Contains(".pragma \"nounroll\";"));
    CHECK(count(text, "st.global.b32") == 1);
  }
}

TEST_CASE("llvm: products of a warpgroup write their registers in place") {
  const auto llvm = find_llvm();
  if (!llvm) return;
  // 128 accumulators, A from registers: what is numbered behind the ties is right only if it is A.
  std::string lines, names;
  for (int i = 0; i < 128; ++i) {
    lines += fmt::format("${}:f32 = var 0f00000000\n", 5 + i);
    names += fmt::format("${}, ", 5 + i);
  }
  lines += fmt::format("wgmma.f16.f32 {0}%1, %1, %1, %1, %0, 0, 1\n", names);
  lines += fmt::format("wgmma.f16.f32 {0}%0, %0, 1, 0\nwgmma.commit\n", names);
  lines += fmt::format("wgmma.wait 0, {}\n", names.substr(0, names.size() - 2));
  lines += "%300:f32 = get $132\nst.global.f32 %0, 0, %300\n";
  const std::string text = llvm->to_ptx(function_of(lines), find_target("sm_90a"));
  const size_t first = text.find("wgmma.mma_async"), last = text.find("wgmma.wait_group");
  REQUIRE(first < last);
  REQUIRE(last != text.npos);
  const std::string between = text.substr(first, last - first);
  CHECK_THAT(between, !Contains("mov."));
  const std::regex list(
      R"(m64n256k16\.f32\.f16\.f16 \{([^}]*)\}, (\{(%r\d+), \3, \3, \3\}|%rd(\d+)), %rd\d+)");
  std::vector<std::string> accumulators;
  for (auto it = std::sregex_iterator(between.begin(), between.end(), list);
       it != std::sregex_iterator(); ++it) {
    accumulators.push_back((*it)[1]);
  }
  REQUIRE(accumulators.size() == 2);
  CHECK(accumulators[0] == accumulators[1]);
}

TEST_CASE("llvm: targets that it does not know are refused, with another back end named") {
  const auto llvm = find_llvm();
  if (!llvm) return;
  for (const char* name : {"sm_100a", "sm_103a", "sm_120", "sm_120a"}) {
    const Error error = thrown_by([&] { llvm->to_ptx(function_of(""), find_target(name)); });
    CHECK(error.kind() == ErrorKind::kUnsupported);
    CHECK_THAT(error.message(),
               Contains(fmt::format("knows no target {}: its newest is sm_90a", name)) &&
                   Contains("--backend ptx"));
  }
  CHECK_NOTHROW(llvm->to_ptx(function_of(""), find_target("sm_80")));
}

TEST_CASE("llvm: a library that is no plug-in, or another build's, is refused") {
  for (const auto& [library, words] :
       {std::pair("/nonexistent.so", "cannot open"), std::pair("libm.so.6", "LLVM plug-in"),
        std::pair(SAGEJIT_FAKE_LLVM_OF_ANOTHER_BUILD, "another build of sagejit")}) {
    const Error error = thrown_by([&] { LlvmPlugin::load(library); });
    CHECK(error.kind() == ErrorKind::kToolchain);
    CHECK_THAT(error.message(), Contains(words));
  }
}

TEST_CASE("llvm: what the plug-in answers is taken for what it is, and given back") {
  const auto llvm = make_llvm_backend(LlvmPlugin::load(SAGEJIT_FAKE_LLVM));
  const auto answer = [&](const char* name) {
    return llvm->to_ptx(
        ir::parse(fmt::format("kernel @{}() threads 32 min_blocks 1 {{\n}}\n", name)),
        find_target("sm_86"));
  };
  CHECK(llvm->name() == "llvm 0.1");
  CHECK(answer("good") == "sm_86 +ptx80 after 0 kept");
  const Error unsupported = thrown_by([&] { answer("unsupported"); });
  CHECK(unsupported.kind() == ErrorKind::kUnsupported);
  CHECK_THAT(unsupported.message(), Contains("after 0 kept") && Contains("--backend ptx"));
  const Error refused = thrown_by([&] { answer("refused"); });
  CHECK(refused.kind() == ErrorKind::kToolchain);
  CHECK(refused.message() == "llvm 0.1 refuses the generated kernel for sm_86");
  CHECK_THAT(refused.log(), Contains("after 0 kept"));
  CHECK(thrown_by([&] { answer("broken"); }).kind() == ErrorKind::kInternal);
  CHECK(answer("good") == "sm_86 +ptx80 after 0 kept");
}

TEST_CASE("llvm: every operation is accepted by the assembler") {
  const auto llvm = find_llvm();
  const auto ptxas = find_ptxas();
  if (!llvm || !ptxas) return;
  // e4m3 products into f16 take a PTX that LLVM 19 does not write.
  const Target& ada = find_target("sm_89");
  CHECK(thrown_by([&] { llvm->to_ptx(kernel_of_everything(ada), ada); }).kind() ==
        ErrorKind::kUnsupported);
  for (const char* name : {"sm_80", "sm_86", "sm_90a"}) {
    INFO(name);
    const Target& target = find_target(name);
    const std::string text = llvm->to_ptx(kernel_of_everything(target), target);
    const MachineCode code = verdict(*ptxas, text, target);
    INFO(code.log);
    CHECK_FALSE(code.cubin.empty());
  }
}

TEST_CASE("llvm: every product of a warpgroup is accepted by the assembler") {
  const auto llvm = find_llvm();
  const auto ptxas = find_ptxas();
  if (!llvm || !ptxas) return;
  const Target& target = find_target("sm_90a");
  const std::string text = llvm->to_ptx(kernel_of_every_warpgroup_product(), target);
  const MachineCode code = verdict(*ptxas, text, target);
  INFO(code.log);
  CHECK_FALSE(code.cubin.empty());
  CHECK(find_assembly_fault(code) == "");
}

namespace {

// Integers around the widths of shifts and of signs; numbers that round, overflow, are denormal, no
// number or a zero of either sign.
constexpr uint32_t kHard[] = {0,          1,          7,          31,         32,
                              33,         0x7fffffff, 0x80000000, 0xffffffff, 0x3f800000,
                              0xbf000000, 0x7f800000, 0xff800000, 0x7fc00000, 0x00400000,
                              0x7f7fffff, 0x4b400001, 0x34000000};
constexpr size_t kNumHard = std::size(kHard);

// Every operation whose results depend on its operands alone, and can be stored.
std::vector<Op> computations() {
  std::vector<Op> ops;
  for (int i = 0; i < static_cast<int>(Op::kParam); ++i) {
    const ir::OpInfo& row = ir::info(static_cast<Op>(i));
    const bool is_mma = row.ptx.starts_with("mma.");
    constexpr int kLlvmKnows = 90;
    const bool is_computed =
        row.effect == ir::Effect::kPure && !row.operands.empty() && row.min_sm <= kLlvmKnows;
    if (is_computed && !is_mma && row.results.find('l') == row.results.npos) {
      ops.push_back(static_cast<Op>(i));
    }
  }
  REQUIRE(ops.size() >= 50);
  return ops;
}

// Results of operations, each a word, one behind another.
struct Result {
  std::string_view op;
  bool is_number;

  // Which of its NaNs an instruction gives is not specified.
  bool is_same(uint32_t a, uint32_t b) const {
    const auto is_nan = [](uint32_t bits) { return std::isnan(std::bit_cast<float>(bits)); };
    return a == b || (is_number && is_nan(a) && is_nan(b));
  }
};

class Recorder {
 public:
  Recorder(ir::Builder& b, ir::Value out) : b_(b), out_(out) {}

  // An operation on what `bits` gives for each of its operands.
  void record(Op op, const std::function<ir::Value(size_t)>& bits) {
    const std::string_view letters = ir::info(op).operands;
    std::vector<ir::Value> operands;
    for (size_t i = 0; i < letters.size(); ++i) {
      operands.push_back(letters[i] == 'i' ? ir::constant(0x3715) : as(letters[i], bits(i)));
    }
    for (const ir::Value result : b_.emit(op, operands)) {
      results_.push_back({ir::info(op).name, result.type == ir::Type::kF32});
      const ir::Value word = result.type == ir::Type::kF32 ? b_.emit1(Op::kBitsF32, {result})
                             : result.type == ir::Type::kPred
                                 ? b_.select(result, ir::constant(1), ir::constant(0))
                                 : result;
      const int offset = 4 * static_cast<int>(results_.size() - 1);
      b_.emit(Op::kStGlobalI32, {out_, ir::constant(offset), word});
    }
  }

  const std::vector<Result>& results() const { return results_; }

 private:
  ir::Value as(char letter, ir::Value bits) {
    switch (letter) {
      case 'f':
        if (!bits.is_const()) return b_.emit1(Op::kF32Bits, {bits});
        return ir::constant_f32(std::bit_cast<float>(static_cast<uint32_t>(bits.bits)));
      case 'p':
        return b_.emit1(Op::kGtS32, {bits, ir::constant(1)});
      case 'l':
        return b_.emit1(Op::kSextI64, {bits});
      default:
        return bits;
    }
  }

  ir::Builder& b_;
  const ir::Value out_;
  std::vector<Result> results_;
};

std::vector<uint32_t> run(const std::string& ptx, std::vector<uint32_t> in, size_t num_blocks,
                          size_t num_results) {
  std::vector<uint32_t> out(num_blocks * num_results, 0xdeadbeef);
  const MemoryRange memory[] = {range(in, "in", false), range(out, "out")};
  emulator::test::run_text(ptx, {static_cast<uint32_t>(num_blocks), 1, 0}, Params(out, in), memory);
  return out;
}

}  // namespace

TEST_CASE("llvm: operations compute, bit for bit, what printed PTX computes") {
  const auto llvm = find_llvm();
  if (!llvm) return;
  const Target& target = find_target("sm_90a");
  ir::Builder b("computations", 32);
  const ir::Value out = b.param("out", ir::Type::kI64), in = b.param("in", ir::Type::kI64);
  const ir::Value block = b.emit1(Op::kBlockX, {});
  const std::vector<Op> ops = computations();
  const int out_words = static_cast<int>(2 * ops.size());
  Recorder recorder(b, b.address(out, block, 4 * out_words));
  const ir::Value from = b.address(in, block, 16);
  for (const Op op : ops) {
    recorder.record(op, [&](size_t i) {
      return b.emit1(Op::kLdGlobalI32, {from, ir::constant(static_cast<int>(4 * (i % 4)))});
    });
  }
  const ir::Function function = b.finish(target.sm);
  std::vector<uint32_t> operands;
  for (size_t i = 0; i < kNumHard * kNumHard; ++i) {
    for (const size_t which : {i % kNumHard, i / kNumHard, i % 7, i % 11}) {
      operands.push_back(kHard[which]);
    }
  }
  const size_t num_blocks = operands.size() / 4;
  const auto expected = run(print_ptx_verbatim(function, target), operands, num_blocks, out_words);
  const auto actual = run(llvm->to_ptx(function, target), operands, num_blocks, out_words);
  for (size_t i = 0; i < expected.size(); ++i) {
    const size_t block_number = i / out_words, number = i % out_words;
    if (number >= recorder.results().size()) continue;
    if (recorder.results()[number].is_same(expected[i], actual[i])) continue;
    FAIL_CHECK(fmt::format("{} of {:#x}: {:#x}, not {:#x}", recorder.results()[number].op,
                           fmt::join(std::span(operands).subspan(4 * block_number, 4), ", "),
                           actual[i], expected[i]));
  }
}

TEST_CASE("llvm: operations on constants are what the GPU makes of them") {
  const auto llvm = find_llvm();
  if (!llvm) return;
  const Target& target = find_target("sm_90a");
  for (size_t first = 0; first < kNumHard; ++first) {
    ir::Builder b("constants", 32);
    const ir::Value out = b.param("out", ir::Type::kI64);
    b.param("in", ir::Type::kI64);
    Recorder recorder(b, out);
    for (const Op op : computations()) {
      for (size_t second = 0; second < kNumHard; ++second) {
        recorder.record(op, [&](size_t i) {
          const size_t which[] = {first, second, (first + second) % kNumHard, 5};
          return ir::constant(static_cast<int>(kHard[which[i % 4]]));
        });
      }
    }
    const ir::Function function = b.finish(target.sm);
    const std::vector<Result>& results = recorder.results();
    const auto expected = run(print_ptx_verbatim(function, target), {0}, 1, results.size());
    const auto actual = run(llvm->to_ptx(function, target), {0}, 1, results.size());
    for (size_t i = 0; i < results.size(); ++i) {
      if (results[i].is_same(expected[i], actual[i])) continue;
      FAIL_CHECK(fmt::format("{} of {:#x} and others: {:#x}, not {:#x}", results[i].op,
                             kHard[first], actual[i], expected[i]));
    }
  }
}

TEST_CASE("llvm: threads compile at once, and alike") {
  const auto llvm = find_llvm();
  if (!llvm) return;
  const Target& target = find_target("sm_90a");
  const ir::Function function = kernel_of_everything(target);
  std::vector<std::string> texts(4);
  std::vector<std::thread> threads;
  for (std::string& text : texts) {
    threads.emplace_back([&] { text = llvm->to_ptx(function, target); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : texts) CHECK(text == texts[0]);
}

}  // namespace sagejit
