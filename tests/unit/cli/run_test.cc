#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/device/emulator/emulator.h"
#include "tests/support/catch.h"
#include "tests/unit/cli/runner.h"

namespace sagejit::cli_test {
namespace {

using nlohmann::json;

const std::string kEmulated = "run --device emulator ";

TEST_CASE("a small problem passes on the emulator, twice, the second time from the cache") {
  const std::string arguments = kEmulated + variant_file("sage1_b.attn") +
                                " --shape b=1,hq=2,hkv=1,m=20,n=70,d=64 --set lse=on --json";
  const Outcome first = sagejit(arguments);
  CAPTURE(first.err);
  REQUIRE(first.exit_code == 0);
  CHECK(first.err.empty());
  const json report = json::parse(first.out);
  CHECK(report["passed"] == true);
  CHECK(report["cache"] == "miss");
  CHECK(report["device"]["name"] == "emulator:sm_80");
  CHECK(report["cosine_bar"] == 0.9995);
  REQUIRE(report["layers"].size() == 1);
  const json& layer = report["layers"][0];
  CHECK(layer["name"] == "normal");
  CHECK(layer["shape"]["n"] == 70);
  CHECK(layer["shape"]["d"] == 64);
  CHECK(layer["cosine"] > 0.9995);
  CHECK(layer["ideal_cosine"] > 0.9995);
  CHECK(layer["num_non_finite"] == 0);
  CHECK(layer["lse_max_abs_error"] < 0.1);
  CHECK(layer["worst_head"]["cosine"] <= layer["cosine"]);
  CHECK(report["stages_ms"]["toolchain"] > 0);
  REQUIRE(report["compiled_kernels"].size() == 2);
  CHECK(report["compiled_kernels"][0]["kernel"] == "prepare");
  CHECK(report["compiled_kernels"][1]["kernel"] == "attention");
  for (const json& kernel : report["compiled_kernels"]) {
    CHECK(kernel["backend_ms"] > 0);
    CHECK(kernel["backend_ms"] <= report["stages_ms"]["toolchain"]);
    CHECK(kernel["assemble_ms"] == 0);  // the emulator reads PTX
  }

  const json again = json::parse(sagejit(arguments).out);
  CHECK(again["cache"] == "hit");
  CHECK(again["stages_ms"]["toolchain"] == 0);
  CHECK(again["compiled_kernels"].empty());
  CHECK(again["layers"][0]["cosine"] == layer["cosine"]);
  CHECK(json::parse(sagejit(arguments + " --no-cache").out)["cache"] == "off");
}

TEST_CASE("the layout in memory does not change the result, the seed does") {
  const std::string arguments =
      kEmulated + variant_file("sage1_b.attn") + " --shape hq=2,m=10,n=20,d=64 --json";
  const json base = json::parse(sagejit(arguments).out)["layers"][0];
  CHECK(json::parse(sagejit(arguments + " --layout bthd").out)["layers"][0]["cosine"] ==
        base["cosine"]);
  CHECK(json::parse(sagejit(arguments + " --seed 2").out)["layers"][0]["cosine"] != base["cosine"]);
}

TEST_CASE("the text report names what matters") {
  const Outcome outcome =
      sagejit(kEmulated + variant_file("sage1_b.attn") + " --shape hq=1,m=8,d=64 --repeat 2");
  REQUIRE(outcome.exit_code == 0);
  for (const char* part :
       {"variant   sage1_b", "schedule  ", "cache     ", "worst head", "PTX, assemble",
        "back end  ptx\n", "TFLOP/s", "verdict: PASS (cosine at least 0.9995"}) {
    CHECK_THAT(outcome.out, Catch::Contains(part));
  }
}

TEST_CASE("an output that misses a bar is exit code 5, with the reason") {
  // Values at the f16 maximum overflow an f16 accumulator: specs/numerics.md, section 4.
  const Outcome outcome =
      sagejit(kEmulated + variant_file("sage1_b.attn") +
              " --set pv_accumulator=f16 --dist fp16_max --shape hq=1,m=16,n=256,d=64");
  CHECK(outcome.exit_code == 5);
  CHECK_THAT(outcome.out,
             Catch::Contains("outputs are NaN or infinite") && Catch::Contains("verdict: FAIL"));
}

TEST_CASE("a real transformer's layers choose the head_dim and pass") {
  const Outcome outcome = sagejit(kEmulated + variant_file("sage1_b.attn") + " --input " +
                                  data_file("minilm_l6_qkv.safetensors") + " --set lse=on --json");
  CAPTURE(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  const json report = json::parse(outcome.out);
  REQUIRE(report["layers"].size() == 6);
  for (size_t i = 0; i < 6; ++i) {
    CHECK(report["layers"][i]["name"] == "layer." + std::to_string(i));
    CHECK(report["layers"][i]["shape"]["d"] == 32);
    CHECK(report["layers"][i]["cosine"] > 0.9995);
  }
}

TEST_CASE("wrong data are user errors that say what to change") {
  const std::string file = variant_file("sage1_b.attn");
  struct Case {
    std::string arguments, message;
  };
  const Case cases[] = {
      {" --shape b=1,x=2",
       "--shape: 'x=2' is not a size of b, hq, hkv, m, n, d or dv; write b=1,hq=8"},
      {" --shape hq=0", "--shape: 'hq=0' is not a whole number from 1 to 2147483647"},
      {" --shape hq=3,hkv=2", "--shape: hq 3 is not a multiple of hkv 2"},
      {" --shape d=40",
       "the data have head_dim 40, but the selected variants have 128, 32, 64, 96; to ask for it: "
       "--set "
       "head_dim=40"},
      {" --dist gauss",
       "no input distribution is called 'gauss'; there are normal, biased_k, biased_qk, outlier_v, "
       "sink, "
       "zero, "
       "constant, fp16_max, growing"},
      {" --input /nonexistent", "cannot open /nonexistent: No such file or directory"},
      {" --device tpu",
       "device 'tpu' is not known: use 'auto', 'cuda', 'cuda:N', 'emulator' or 'emulator:TARGET'"},
  };
  for (const Case& c : cases) {
    const Outcome outcome = sagejit("run " + file + c.arguments);
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.err == "sagejit: error: " + c.message + "\n");
  }
}

TEST_CASE("compile emits every form, and warms the cache for run") {
  const std::string base =
      "compile " + variant_file("sage1_b.attn") +
      " --select 'head_dim=64, mask=none, pv_accumulator=f32' --target sm_80 --emit ";
  CHECK_THAT(sagejit(base + "source").out, Catch::Contains("__global__"));
  CHECK_FALSE(sagejit(base + "ir").out.empty());
  const Outcome ptx = sagejit(base + "ptx");
  CHECK(ptx.exit_code == 0);
  CHECK_THAT(ptx.out, Catch::Contains(".target sm_80") && Catch::Contains(".entry"));
  CHECK_THAT(sagejit(base + "cubin --kernel attention").out, Catch::StartsWith("\177ELF"));
  CHECK_THAT(sagejit(base + "report").out,
             Catch::Contains("registers") && Catch::Contains("workspace"));
  const Outcome run =
      sagejit(kEmulated + variant_file("sage1_b.attn") +
              " --select 'head_dim=64, mask=none, pv_accumulator=f32' --shape m=4 --json");
  CHECK(json::parse(run.out)["cache"] == "hit");
}

TEST_CASE("compile writes a loadable file for each kernel") {
  const std::string base = "compile " + variant_file("sage1_b.attn") +
                           " --select 'head_dim=64, mask=none, pv_accumulator=f32' --target sm_80";
  const std::string folder =
      std::filesystem::path(file_with("kernel.ptx", "")).parent_path().string() + "/";
  const Outcome outcome = sagejit(base + " --emit ptx -o " + folder + "kernel.ptx");
  CHECK(outcome.exit_code == 0);
  CHECK(outcome.out == folder + "kernel.prepare.ptx\n" + folder + "kernel.attention.ptx\n");
  CHECK(read_file(folder + "kernel.ptx") == "");
  std::string all;
  for (const std::string kernel : {"prepare", "attention"}) {
    const std::string ptx = read_file(folder + "kernel." + kernel + ".ptx");
    CHECK_NOTHROW(emulator::Program::parse(ptx));
    CHECK_THAT(ptx, Catch::Contains(".entry " + kernel + "("));
    all += "// kernel " + kernel + "\n" + ptx + "\n";
    CHECK(sagejit(base + " --emit ptx --kernel " + kernel).out == ptx);
    const std::string chosen = folder + "chosen";
    CHECK(sagejit(base + " --emit cubin --kernel " + kernel + " -o " + chosen).out ==
          chosen + "\n");
    CHECK_THAT(read_file(chosen), Catch::StartsWith("\177ELF") && Catch::Contains(kernel));
  }
  CHECK(sagejit(base + " --emit ptx").out == all);
}

TEST_CASE("compile refuses a kernel that is not there, and cubins in a stream") {
  const std::string base = "compile " + variant_file("sage1_b.attn") + " --target sm_80 --emit ";
  struct Case {
    std::string arguments, message;
  };
  const Case cases[] = {
      {"ptx --kernel attend", "--kernel: 'attend' is none of prepare, attention"},
      {"report --kernel attention",
       "a report is of all kernels: --kernel goes with another --emit"},
      {"cubin",
       "the cubins of 2 kernels make no stream; choose one with --kernel, or name files with -o"},
  };
  for (const Case& c : cases) {
    const Outcome outcome = sagejit(base + c.arguments);
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.out == "");
    CHECK_THAT(outcome.err, Catch::EndsWith("sagejit: error: " + c.message + "\n"));
  }
}

TEST_CASE("a missing NVRTC is an environment error that says how to get it") {
  const Outcome outcome = sagejit(kEmulated + variant_file("sage1_b.attn") +
                                  " --backend cuda --nvrtc /nonexistent.so --shape m=4 --no-cache");
  CHECK(outcome.exit_code == 3);
  CHECK_THAT(outcome.err,
             Catch::StartsWith("sagejit: error: ") && Catch::Contains("/nonexistent.so"));
}

TEST_CASE("an unknown name of a choice is answered with the names there are") {
  const std::string variant = variant_file("sage1_b.attn");
  for (const auto& [command, error] :
       {std::pair("run " + variant + " --backend foo", "`foo` is none of auto, cuda, llvm, ptx"),
        std::pair("run " + variant + " --layout foo", "`foo` is none of bhtd, bthd"),
        std::pair("compile " + variant + " --target sm_80 --assembler foo",
                  "`foo` is none of auto, driver, nvrtc, ptxas")}) {
    CAPTURE(command);
    const Outcome outcome = sagejit(command);
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains(error));
  }
}

TEST_CASE("without any tool, doctor says what would mend it, and kernels run on the emulator") {
  const std::string none = " --nvrtc /nonexistent.so --ptxas /nonexistent ";
  const Outcome doctor = sagejit("doctor" + none);
  for (const char* part : {"back ends\n  ptx: built in\n  llvm: ", "\n  cuda: NVRTC, ",
                           "  ptxas: ptxas, the assembler ",
                           "pip install --no-deps --target .deps/ptxas nvidia-cuda-nvcc",
                           "  nvrtc: not found, see above", "  driver: "}) {
    CHECK_THAT(doctor.out, Catch::Contains(part));
  }
  // With a GPU its driver will do.
  const bool has_driver = doctor.out.find("  driver: driver ") != std::string::npos;
  CHECK(doctor.exit_code == (has_driver ? 0 : 3));
  if (!has_driver) CHECK_THAT(doctor.out, Catch::Contains("For a GPU an assembler is missing"));
  const Outcome run =
      sagejit(kEmulated + variant_file("sage1_b.attn") + none + "--shape m=4,hq=1 --no-cache");
  CAPTURE(run.err);
  CHECK(run.exit_code == 0);
}

TEST_CASE("PTX and the emulator load nothing of NVIDIA's, on any target") {
  const std::string variant = variant_file("sage1_b.attn") + " --no-cache --set head_dim=64";
  for (const char* target :
       {"sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100a", "sm_103a", "sm_120", "sm_120a"}) {
    const Outcome outcome = sagejit_with_loader_trace(
        "compile " + variant + " --kernel attention --emit ptx --target " + target);
    CHECK(outcome.exit_code == 0);
    CHECK_THAT(outcome.out, Catch::Contains(fmt::format(".target {}\n", target)));
    // The trace has all that is loaded: the program's own C library, but neither of these.
    CHECK_THAT(outcome.err, Catch::Contains("libc.so") && !Catch::Contains("nvrtc") &&
                                !Catch::Contains("libcuda") && !Catch::Contains("libsagejit_llvm"));
  }
  const Outcome run = sagejit_with_loader_trace(kEmulated + variant + " --shape m=4,hq=1");
  CHECK(run.exit_code == 0);
  CHECK_THAT(run.err, Catch::Contains("libc.so") && !Catch::Contains("nvrtc") &&
                          !Catch::Contains("libcuda") && !Catch::Contains("libsagejit_llvm"));
}

TEST_CASE("the LLVM back end loads nothing of NVIDIA's, and refuses what LLVM 19 does not know") {
  const std::string compile = "compile " + variant_file("sage1_b.attn") +
                              " --no-cache --set head_dim=64 --kernel attention --emit ptx "
                              "--backend llvm --target ";
  const Outcome outcome = sagejit_with_loader_trace(compile + "sm_90a");
  if (outcome.err.find("llvm-19-dev") != std::string::npos) {
    CHECK(outcome.exit_code == 3);
    WARN("skipped: the LLVM back end is not built");
    return;
  }
  CHECK(outcome.exit_code == 0);
  CHECK_THAT(outcome.out, Catch::Contains("LLVM NVPTX") && Catch::Contains(".target sm_90a\n"));
  CHECK_THAT(outcome.err, Catch::Contains("libsagejit_llvm.so") && !Catch::Contains("nvrtc") &&
                              !Catch::Contains("libcuda"));
  const Outcome unknown = sagejit(compile + "sm_120");
  CHECK(unknown.exit_code == 2);
  CHECK_THAT(unknown.err,
             Catch::Contains("knows no target sm_120") && Catch::Contains("--backend ptx"));
}

TEST_CASE("back end and assembler are what was asked for, and said") {
  const std::string base = "compile " + variant_file("sage1_b.attn") +
                           " --set head_dim=64 --target sm_80 --no-cache --times ";
  struct Case {
    std::string options, backend, assembler, stage;
  };
  const Case cases[] = {
      {"--backend ptx --assembler ptxas", "ptx", "ptxas 1", "attention: assemble"},
      {"--backend ptx --assembler nvrtc", "ptx", "nvrtc 1", "attention: assemble"},
      {"--backend llvm --assembler ptxas", "llvm 19.", "ptxas 1", "attention: assemble"},
      {"--backend cuda --assembler ptxas", "cuda nvrtc 1", "ptxas 1", "attention: assemble"},
      {"--backend cuda", "cuda nvrtc 1", "nvrtc 1", "attention: PTX"}};
  for (const Case& c : cases) {
    const Outcome outcome = sagejit(base + c.options);
    if (outcome.exit_code == 3) {
      WARN("skipped: " << c.options << ": " << outcome.err);
      continue;
    }
    CHECK(outcome.exit_code == 0);
    CHECK_THAT(outcome.out, Catch::Contains("\nback end  " + c.backend) &&
                                Catch::Contains("\nassembler " + c.assembler));
    CHECK_THAT(outcome.err, Catch::Contains("find toolchain") && Catch::Contains(c.stage));
  }
}

TEST_CASE("what the driver assembles stays PTX, and its report is of the loaded kernel") {
  const std::string base = "compile " + variant_file("sage1_b.attn") +
                           " --set head_dim=64 --target sm_80 --no-cache --assembler driver ";
  const Outcome report = sagejit_with_fake_gpus(base);
  CAPTURE(report.err);
  CHECK(report.exit_code == 0);
  CHECK_THAT(report.out, Catch::Contains("\nassembler driver ") &&
                             Catch::Contains("\ncubin     0 bytes\n") &&
                             Catch::Contains("  attention         77          24 B"));
  const Outcome cubin = sagejit_with_fake_gpus(base + "--emit cubin --kernel attention");
  CHECK(cubin.exit_code == 2);
  CHECK_THAT(
      cubin.err,
      Catch::Contains("keeps its machine code to itself; for a cubin take --assembler ptxas"));
}

TEST_CASE("the ptx back end has no source to show") {
  const Outcome outcome = sagejit("compile " + variant_file("sage1_b.attn") +
                                  " --target sm_80 --emit source --backend ptx");
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Catch::Contains("the ptx back end writes no source but its PTX: --emit "
                                          "ptx; or take --backend cuda"));
}

TEST_CASE("without NVRTC, what the cache holds still runs") {
  const std::string arguments =
      kEmulated + variant_file("sage1_b.attn") +
      " --set head_dim=32 --shape m=4,hq=1 --json --backend cuda --nvrtc ";
  const Outcome missing = sagejit(arguments + "/nonexistent.so");
  CHECK(missing.exit_code == 3);
  CHECK_THAT(missing.err, Catch::Contains("is not in the cache") &&
                              Catch::Contains("/nonexistent.so") &&
                              Catch::Contains("sagejit compile FILE"));
  REQUIRE(sagejit("compile " + variant_file("sage1_b.attn") +
                  " --set head_dim=32 --target sm_80 --emit ptx")
              .exit_code == 0);
  const Outcome run = sagejit(arguments + "/nonexistent.so");
  CAPTURE(run.err);
  CHECK(run.exit_code == 0);
  CHECK(json::parse(run.out)["cache"] == "hit");
}

TEST_CASE("doctor finds what a compilation needs") {
  const Outcome outcome = sagejit("doctor");
  CHECK(outcome.exit_code == 0);
  for (const char* part : {"GPUs: ", "  ptx: built in\n  llvm: ", "\n  cuda: ", "\n  ptxas: ",
                           "\n  nvrtc: ", "\n  driver: ", "kernel cache: ",
                           "PTX emulator: built in", "Kernels can be compiled and run."}) {
    CHECK_THAT(outcome.out, Catch::Contains(part));
  }
}

}  // namespace
}  // namespace sagejit::cli_test
