// Binding of arguments: what reaches the device, and what is refused with which words.
#include "tests/support/catch.h"
#include "tests/unit/runtime/allocation_counter.h"
#include "tests/unit/runtime/fakes.h"

namespace sagejit::testing {
namespace {

constexpr int kQ = 0, kK = 1, kV = 2, kO = 3, kLse = 4;

struct Fixture {
  std::shared_ptr<FakeDevice> device = std::make_shared<FakeDevice>();
  Kernel kernel{device, toy_artifact()};
  AttentionArgs args = recorded_args({});

  std::string refusal(ErrorKind kind = ErrorKind::kArgument) {
    return error_of([&] { kernel.launch(args, kBothPhases, nullptr); }, kind);
  }
};

}  // namespace

TEST_CASE("launch: grids, parameters and workspace reach the device") {
  Fixture f;
  auto* stream = reinterpret_cast<Stream>(0x77);
  f.kernel.launch(f.args, kBothPhases, stream);
  REQUIRE(f.device->num_launches == 2);
  const FakeDevice::Launch& prepare = f.device->launches[0];
  CHECK(prepare.kernel == "toy_prepare");
  CHECK(prepare.grid == std::array<uint32_t, 3>{5, 4, 2});
  CHECK(prepare.block_threads == 32);
  CHECK(prepare.stream == stream);
  CHECK(prepare.param_bytes == 56);
  CHECK(param_at<uint64_t>(prepare, 0) == 0x10000);
  CHECK(param_at<int64_t>(prepare, 8) == 4 * 5 * 64);
  CHECK(param_at<int64_t>(prepare, 24) == 64);
  CHECK(param_at<uint64_t>(prepare, 32) == 0x100000);
  CHECK(param_at<uint64_t>(prepare, 40) == 0x100000 + 2 * 4 * 5 * 64 * 2);
  CHECK(param_at<int32_t>(prepare, 48) == 4);
  CHECK(param_at<int32_t>(prepare, 52) == 5);
  CHECK(f.device->launches[1].kernel == "toy_attend");
  CHECK(param_at<int32_t>(f.device->launches[1], 80) == 7);
}

TEST_CASE("launch: the ranges of all operands and buffers are passed on") {
  Fixture f;
  f.kernel.launch(f.args, kBothPhases, nullptr);
  const FakeDevice::Launch& attend = f.device->launches[1];
  std::string seen;
  for (size_t i = 0; i < attend.num_ranges; ++i) {
    const MemoryRange& range = attend.memory[i];
    seen += fmt::format("{} {:#x} {} {}\n", range.name, range.address, range.bytes,
                        range.writable ? "rw" : "r");
  }
  CHECK(seen ==
        "q 0x10000 5120 r\n"
        "o 0x40000 5120 rw\n"
        "lse 0x50000 160 rw\n"
        "workspace.copy 0x100000 5120 rw\n"
        "workspace.count 0x101400 4 rw\n");
}

TEST_CASE("launch: the extent of a strided operand ends with its last element") {
  Fixture f;
  Tensor& q = f.args.tensors[kQ];
  q.strides = {64 * 5 * 100, 64 * 10, 64 * 2, 1};
  f.kernel.launch(f.args, kBothPhases, nullptr);
  const int64_t last = 64 * 5 * 100 + 3 * 64 * 10 + 4 * 64 * 2 + 63;
  CHECK(f.device->launches[0].memory[0].bytes == static_cast<uint64_t>(2 * (last + 1)));
}

TEST_CASE("launch: strides beyond 32 bits are passed whole") {
  Fixture f;
  f.args.tensors[kQ].strides[0] = int64_t{3} << 33;
  f.kernel.launch(f.args, kBothPhases, nullptr);
  CHECK(param_at<int64_t>(f.device->launches[0], 8) == int64_t{3} << 33);
  CHECK(f.device->launches[0].memory[0].bytes > uint64_t{3} << 34);
}

TEST_CASE("launch: the stride of an axis of one element does not matter") {
  Fixture f;
  f.args = recorded_args({.b = 1});
  f.args.tensors[kQ].strides[0] = -12345;
  f.kernel.launch(f.args, kBothPhases, nullptr);
  CHECK(param_at<int64_t>(f.device->launches[0], 8) == 0);
}

TEST_CASE("launch: an input may repeat itself by stride 0") {
  Fixture f;
  f.args.tensors[kK].strides[1] = 0;
  f.args.tensors[kQ].strides[0] = 0;
  f.kernel.launch(f.args, kBothPhases, nullptr);
  CHECK(param_at<int64_t>(f.device->launches[0], 8) == 0);
}

TEST_CASE("launch: phases run apart, and only quantize clears") {
  Fixture f;
  f.kernel.launch(f.args, kQuantizePhase, nullptr);
  CHECK(f.device->num_launches == 1);
  CHECK(f.device->launches[0].kernel == "toy_prepare");
  REQUIRE(f.device->num_clears == 1);
  CHECK(f.device->clears[0].command.address == 0x101400);
  CHECK(f.device->clears[0].command.bytes == 4);
  CHECK(f.device->clears[0].launches_before == 0);
  f.device->forget();
  f.kernel.launch(f.args, kAttendPhase, nullptr);
  CHECK(f.device->num_launches == 1);
  CHECK(f.device->launches[0].kernel == "toy_attend");
  CHECK(f.device->num_clears == 0);
}

TEST_CASE("launch: a phase asks only for the operands that it touches") {
  Fixture f;
  f.args.tensors[kO] = {};
  f.args.tensors[kLse] = {};
  f.args.tensors[kK].address = 0;
  f.kernel.launch(f.args, kQuantizePhase, nullptr);
  CHECK(f.device->num_launches == 1);
  f.args = recorded_args({});
  f.args.tensors[kQ].address = 0;
  f.kernel.launch(f.args, kAttendPhase, nullptr);
  CHECK(f.device->num_launches == 2);
}

TEST_CASE("launch: neighbouring zeroed buffers are cleared at once, others apart") {
  Artifact artifact = toy_artifact();
  artifact.plan.workspace = {{"copy", SizeExpr("b * hq * m * 64 * 2"), true},
                             {"count", SizeExpr("4"), true},
                             {"kept", SizeExpr("300"), false},
                             {"last", SizeExpr("n"), true}};
  auto device = std::make_shared<FakeDevice>();
  const Kernel kernel(device, artifact);
  const AttentionArgs args = recorded_args({});
  CHECK(kernel.workspace_bytes(args) == 5120 + 256 + 512 + 256);
  kernel.launch(args, kBothPhases, nullptr);
  REQUIRE(device->num_clears == 2);
  CHECK(device->clears[0].command.address == 0x100000);
  CHECK(device->clears[0].command.bytes == 5124);
  CHECK(device->clears[1].command.address == 0x100000 + 5120 + 256 + 512);
  CHECK(device->clears[1].command.bytes == 7);
}

TEST_CASE("launch: the workspace query needs no addresses and no outputs") {
  Fixture f;
  for (Tensor& tensor : f.args.tensors) tensor.address = 0;
  f.args.tensors[kO] = f.args.tensors[kLse] = {};
  f.args.workspace = f.args.workspace_bytes = 0;
  CHECK(f.kernel.workspace_bytes(f.args) == 5120 + 256);
}

TEST_CASE("launch: nothing to do for no batch or no query, zero keys still attend") {
  Fixture f;
  for (const Sizes sizes : {Sizes{.b = 0}, Sizes{.m = 0}}) {
    f.args = recorded_args(sizes);
    f.args.workspace = 0;
    for (Tensor& tensor : f.args.tensors) tensor.address = 0;
    CHECK(f.kernel.workspace_bytes(f.args) == 0);
    f.kernel.launch(f.args, kBothPhases, nullptr);
    CHECK(f.device->num_launches == 0);
    CHECK(f.device->num_clears == 0);
  }
  f.args = recorded_args({.n = 0});
  f.args.tensors[kK].address = f.args.tensors[kV].address = 0;
  f.kernel.launch(f.args, kBothPhases, nullptr);
  CHECK(f.device->launches[1].kernel == "toy_attend");
  CHECK(param_at<int32_t>(f.device->launches[1], 80) == 0);
}

TEST_CASE("launch: a step with an empty grid is left out") {
  Artifact artifact = toy_artifact();
  artifact.plan.launches[0].grid[0] = SizeExpr("n");
  auto device = std::make_shared<FakeDevice>();
  const Kernel kernel(device, artifact);
  kernel.launch(recorded_args({.n = 0}), kBothPhases, nullptr);
  CHECK(device->num_launches == 1);
  CHECK(device->launches[0].kernel == "toy_attend");
}

TEST_CASE("launch: allocates nothing") {
  Fixture f;
  f.kernel.launch(f.args, kBothPhases, nullptr);
  f.device->forget();
  const size_t before = num_allocations();
  f.kernel.launch(f.args, kBothPhases, nullptr);
  f.kernel.launch(f.args, kQuantizePhase, nullptr);
  const size_t after = num_allocations();
  CHECK(after == before);
  CHECK(f.device->num_launches == 3);
  auto probe = std::make_unique<int>(1);
  CHECK(num_allocations() > after);
}

TEST_CASE("launch: each wrong argument is named, and the kernel stays usable") {
  struct Wrong {
    const char* what;
    std::function<void(AttentionArgs&)> change;
    const char* message;
  };
  const auto t = [](AttentionArgs& a, int i) -> Tensor& { return a.tensors[i]; };
  const std::vector<Wrong> table = {
      {"no q", [&](auto& a) { t(a, kQ) = {}; }, "q is null: pass a tensor [b, hq, m, d]"},
      {"no o", [&](auto& a) { t(a, kO) = {}; }, "o is null: pass a tensor [b, hq, m, dv]"},
      {"no lse", [&](auto& a) { t(a, kLse) = {}; }, "lse is null: pass a tensor [b, hq, m]"},
      {"rank", [&](auto& a) { t(a, kV).rank = 3; }, "v has 3 axes: pass [b, hkv, n, dv] as 4 axes"},
      {"dtype", [&](auto& a) { t(a, kK).dtype = DType::kBF16; },
       "k is bf16, but the kernel was made for f16: convert it, or change the variant's io types"},
      {"negative size", [&](auto& a) { t(a, kQ).shape[2] = -1; },
       "q.shape[2] is -1: sizes are not negative"},
      {"head dim", [&](auto& a) { t(a, kQ).shape[3] = 128; },
       "q.shape[3] is 128, but head_dim of the variant is 64: q is [b, hq, m, d]"},
      {"value head dim", [&](auto& a) { t(a, kO).shape[3] = 32; },
       "o.shape[3] is 32, but value_head_dim of the variant is 64: o is [b, hq, m, dv]"},
      {"batch", [&](auto& a) { t(a, kK).shape[0] = 3; },
       "k.shape[0] is 3, but the batch size of q is 2: k is [b, hkv, n, d]"},
      {"keys", [&](auto& a) { t(a, kV).shape[2] = 8; },
       "v.shape[2] is 8, but the number of keys of k is 7: v is [b, hkv, n, dv]"},
      {"heads of k and v", [&](auto& a) { t(a, kV).shape[1] = 1; },
       "v.shape[1] is 1, but the number of heads of k is 2: v is [b, hkv, n, dv]"},
      {"rows of o", [&](auto& a) { t(a, kO).shape[2] = 6; },
       "o.shape[2] is 6, but the number of rows of q is 5: o is [b, hq, m, dv]"},
      {"grouping", [&](auto& a) { t(a, kK).shape[1] = t(a, kV).shape[1] = 3; },
       "q has 4 heads and k has 3: the first must be a multiple of the second"},
      {"no heads", [&](auto& a) { t(a, kK).shape[1] = t(a, kV).shape[1] = 0; },
       "q has 4 heads and k has 0: at least one of each is needed"},
      {"last stride", [&](auto& a) { t(a, kQ).strides[3] = 2; },
       "q.strides[3] is 2: the last axis must have stride 1; make q contiguous there"},
      {"row alignment", [&](auto& a) { t(a, kV).strides[2] = 65; },
       "v.strides[2] is 65: it must be a multiple of 8 elements, so that rows start on 16-byte "
       "boundaries"},
      {"negative stride", [&](auto& a) { t(a, kQ).strides[1] = -64; },
       "q.strides[1] is -64: negative strides are not supported"},
      {"output repeats itself", [&](auto& a) { t(a, kO).strides[0] = 0; },
       "o.strides[0] is 0: elements of an output cannot share memory"},
      {"overflow", [&](auto& a) { t(a, kQ).strides[0] = INT64_MAX / 8 * 8; },
       "q reaches beyond the 64-bit address space: check its shape and strides"},
      {"null data", [&](auto& a) { t(a, kO).address = 0; }, "o.data is null"},
      {"misaligned data", [&](auto& a) { t(a, kQ).address += 2; },
       "q.data is 0x10002: it must be aligned to 16 bytes"},
      {"misaligned lse", [&](auto& a) { t(a, kLse).address += 2; },
       "lse.data is 0x50002: it must be aligned to 4 bytes"},
      {"no workspace", [&](auto& a) { a.workspace = 0; },
       "workspace is null: this problem needs 5376 bytes"},
      {"small workspace", [&](auto& a) { a.workspace_bytes = 5375; },
       "workspace_bytes is 5375: this problem needs 5376 bytes"},
      {"misaligned workspace", [&](auto& a) { a.workspace += 128; },
       "workspace is 0x100080: it must be aligned to 256 bytes"},
  };
  Fixture f;
  for (const Wrong& wrong : table) {
    INFO(wrong.what);
    f.args = recorded_args({});
    wrong.change(f.args);
    CHECK(f.refusal() == wrong.message);
    CHECK(f.device->num_launches == 0);
    CHECK(f.device->num_clears == 0);
    f.args = recorded_args({});
    CHECK(f.refusal() == "");
    f.device->forget();
  }
}

TEST_CASE("launch: memory of another device is refused") {
  Fixture f;
  f.device->unreachable = 0x10000;
  CHECK(f.refusal() == "q is not memory of fake");
  f.device->unreachable = 0x100000;
  CHECK(f.refusal() == "workspace is not memory of fake");
  CHECK(f.device->num_launches == 0);
}

TEST_CASE("launch: limits of grid and 32-bit parameters are named before anything is enqueued") {
  Fixture f;
  f.args = recorded_args({.b = 70000, .hq = 1, .hkv = 1, .m = 1, .n = 1});
  CHECK(f.refusal(ErrorKind::kUnsupported) ==
        "kernel 'toy_prepare' needs 70000 blocks along grid.z (b), above the limit of 65535: split "
        "the problem");
  f.args = recorded_args({.b = 1, .hq = 1, .hkv = 1, .m = 1, .n = int64_t{1} << 31});
  CHECK(f.refusal(ErrorKind::kUnsupported) ==
        "parameter 'n' of kernel 'toy_attend' is 2147483648 (n), above the limit of 2147483647: "
        "split the problem");
  CHECK(f.device->num_launches == 0);
  CHECK(f.device->num_clears == 0);
}

TEST_CASE("launch: lse where none is written is refused") {
  Artifact artifact = toy_artifact();
  artifact.tensors.lse = false;
  const Kernel kernel(std::make_shared<FakeDevice>(), artifact);
  CHECK(error_of([&] { kernel.launch(recorded_args({}), kBothPhases, nullptr); },
                 ErrorKind::kArgument) ==
        "lse is given, but the variant writes none: pass null, or use a variant that outputs lse");
}

TEST_CASE("launch: a plan that breaks a limit does not load") {
  Artifact artifact = toy_artifact();
  artifact.plan.launches[0].params[4].buffer = 9;
  CHECK(error_of([&] { Kernel(std::make_shared<FakeDevice>(), artifact); }, ErrorKind::kInternal) ==
        "parameter 'copy' of kernel 'toy_prepare' names workspace buffer 9 of 2");
  artifact.plan.workspace.resize(Kernel::kMaxBuffers + 1);
  CHECK(error_of([&] { Kernel(std::make_shared<FakeDevice>(), artifact); }, ErrorKind::kInternal) ==
        "the plan has 33 workspace buffers; the launcher's limit is 32");
  artifact = toy_artifact();
  artifact.plan.launches.resize(Kernel::kMaxLaunches + 1, artifact.plan.launches[0]);
  CHECK(error_of([&] { Kernel(std::make_shared<FakeDevice>(), artifact); }, ErrorKind::kInternal) ==
        "the plan has 9 launches; the launcher's limit is 8");
  artifact = toy_artifact();
  artifact.plan.launches[1].params.resize(513, i64("n"));
  CHECK(error_of([&] { Kernel(std::make_shared<FakeDevice>(), artifact); }, ErrorKind::kInternal) ==
        "the parameters of the plan's kernels up to 'toy_attend' take 4160 bytes; the launcher's "
        "limit is 4096");
}

}  // namespace sagejit::testing
