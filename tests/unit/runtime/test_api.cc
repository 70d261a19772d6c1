// The C API: statuses, messages, lifetimes. A fake compiler makes the toy kernels; the device
// records.
#include "compiler/plan/forward_plan.h"
#include "compiler/sema/resolve.h"
#include "runtime/api/handles.h"
#include "tests/support/catch.h"
#include "tests/unit/runtime/allocation_counter.h"
#include "tests/unit/runtime/fakes.h"

namespace sagejit::testing {
namespace {

constexpr std::string_view kText =
    "toy {\n  head_dim = 64\n  q = int8 per block(128)\n  k = int8 per block(64)\n  lse = on\n}\n";

// A status and its message, and the error cleaned up.
struct Outcome {
  sagejit_status status;
  std::string message;
};

template <typename Function, typename... Args>
Outcome call(Function function, Args... args) {
  sagejit_error* error = nullptr;
  const sagejit_status status = function(args..., &error);
  Outcome outcome = {status, sagejit_error_message(error)};
  CHECK(sagejit_error_status(error) == status);
  CHECK((error == nullptr) == (status == SAGEJIT_OK));
  sagejit_error_destroy(error);
  return outcome;
}

void check(const Outcome& outcome, sagejit_status status, const std::string& message) {
  CHECK(sagejit_status_name(outcome.status) == std::string(sagejit_status_name(status)));
  CHECK(outcome.message == message);
}

sagejit_tensor c_tensor(uintptr_t address, int dtype, std::vector<int64_t> shape) {
  const Tensor source = tensor(address, DType::kF16, shape);
  sagejit_tensor result = {};
  result.struct_size = sizeof(result);
  result.dtype = dtype;
  result.data = reinterpret_cast<void*>(address);
  result.ndim = source.rank;
  for (int i = 0; i < source.rank; ++i) {
    result.shape[i] = source.shape[i];
    result.strides[i] = source.strides[i];
  }
  return result;
}

// A context whose compiler and device are fakes, and a variant and kernel made with them.
struct Fixture {
  Fixture() {
    auto owned = std::make_unique<FakeCompiler>();
    compiler = owned.get();
    ContextOptions options;
    options.disk_cache = false;
    context.impl = std::make_unique<Context>(options, Environment{}, std::move(owned));
    recorder = std::make_shared<FakeDevice>();
    device.impl = recorder;
    REQUIRE(call(sagejit_variant_parse, &context, kText.data(), kText.size(), nullptr, &variant)
                .status == SAGEJIT_OK);
    REQUIRE(call(sagejit_kernel_get, &context, variant, &device, &kernel).status == SAGEJIT_OK);
    reset();
  }
  ~Fixture() {
    sagejit_variant_destroy(variant);
    sagejit_kernel_destroy(kernel);
  }
  void reset() {
    q = c_tensor(0x10000, SAGEJIT_F16, {2, 4, 5, 64});
    k = c_tensor(0x20000, SAGEJIT_F16, {2, 2, 7, 64});
    v = c_tensor(0x30000, SAGEJIT_F16, {2, 2, 7, 64});
    o = c_tensor(0x40000, SAGEJIT_F16, {2, 4, 5, 64});
    lse = c_tensor(0x50000, SAGEJIT_F32, {2, 4, 5});
    args = {};
    args.struct_size = sizeof(args);
    args.q = &q;
    args.k = &k;
    args.v = &v;
    args.o = &o;
    args.lse = &lse;
    args.workspace = reinterpret_cast<void*>(0x100000);
    args.workspace_bytes = 5376;
    recorder->forget();
  }
  Outcome launch(uint32_t phases = SAGEJIT_BOTH) {
    return call(sagejit_kernel_launch, kernel, &args, phases, sagejit_stream{nullptr});
  }

  FakeCompiler* compiler;
  std::shared_ptr<FakeDevice> recorder;
  sagejit_context context;
  sagejit_device device;
  sagejit_variant* variant = nullptr;
  sagejit_kernel* kernel = nullptr;
  sagejit_tensor q, k, v, o, lse;
  sagejit_attention_args args;
};

}  // namespace

TEST_CASE("api: names and version") {
  CHECK(sagejit_version() == SAGEJIT_VERSION);
  CHECK(sagejit_status_name(SAGEJIT_OK) == std::string("SAGEJIT_OK"));
  CHECK(sagejit_status_name(SAGEJIT_E_SPEC) == std::string("SAGEJIT_E_SPEC"));
  CHECK(sagejit_status_name(SAGEJIT_E_INTERNAL) == std::string("SAGEJIT_E_INTERNAL"));
  CHECK(sagejit_status_name(static_cast<sagejit_status>(10)) == std::string("unknown status"));
  CHECK(sagejit_status_name(static_cast<sagejit_status>(-1)) == std::string("unknown status"));
}

TEST_CASE("api: null is destroyed and read without harm") {
  sagejit_context_destroy(nullptr);
  sagejit_device_destroy(nullptr);
  sagejit_variant_destroy(nullptr);
  sagejit_kernel_destroy(nullptr);
  sagejit_error_destroy(nullptr);
  CHECK(sagejit_error_status(nullptr) == SAGEJIT_OK);
  CHECK(sagejit_error_message(nullptr) == std::string());
  CHECK(sagejit_error_log(nullptr) == std::string());
  CHECK(sagejit_device_name(nullptr) == nullptr);
  CHECK(sagejit_variant_text(nullptr) == nullptr);
}

TEST_CASE("api: null parameters are named, and out becomes null") {
  Fixture f;
  auto* const garbage = reinterpret_cast<sagejit_kernel*>(0x1);
  sagejit_kernel* kernel = garbage;
  check(call(sagejit_kernel_get, nullptr, f.variant, &f.device, &kernel), SAGEJIT_E_ARGUMENT,
        "context is null");
  CHECK(kernel == nullptr);
  check(call(sagejit_kernel_get, &f.context, nullptr, &f.device, &kernel), SAGEJIT_E_ARGUMENT,
        "variant is null");
  check(call(sagejit_kernel_get, &f.context, f.variant, nullptr, &kernel), SAGEJIT_E_ARGUMENT,
        "device is null");
  check(call(sagejit_kernel_get, &f.context, f.variant, &f.device, nullptr), SAGEJIT_E_ARGUMENT,
        "out is null");
  check(call(sagejit_device_open, nullptr, nullptr), SAGEJIT_E_ARGUMENT, "out is null");
  sagejit_device* device = nullptr;
  check(call(sagejit_device_open, nullptr, &device), SAGEJIT_E_ARGUMENT, "name is null");
  check(call(sagejit_kernel_launch, nullptr, &f.args, 3u, sagejit_stream{nullptr}),
        SAGEJIT_E_ARGUMENT, "kernel is null");
  check(call(sagejit_kernel_launch, f.kernel, nullptr, 3u, sagejit_stream{nullptr}),
        SAGEJIT_E_ARGUMENT, "args is null");
  check(call(sagejit_kernel_workspace, f.kernel, &f.args, nullptr), SAGEJIT_E_ARGUMENT,
        "bytes is null");
  CHECK(sagejit_context_counters(&f.context, nullptr) == SAGEJIT_E_ARGUMENT);
  CHECK(sagejit_kernel_describe(f.kernel, nullptr, nullptr) == SAGEJIT_E_ARGUMENT);
  // An error object is optional.
  CHECK(sagejit_kernel_launch(f.kernel, nullptr, 3, nullptr, nullptr) == SAGEJIT_E_ARGUMENT);
  check(f.launch(), SAGEJIT_OK, "");
}

TEST_CASE("api: launch reaches the device") {
  Fixture f;
  size_t bytes = 0;
  check(call(sagejit_kernel_workspace, f.kernel, &f.args, &bytes), SAGEJIT_OK, "");
  CHECK(bytes == 5376);
  check(f.launch(), SAGEJIT_OK, "");
  CHECK(f.recorder->num_launches == 2);
  CHECK(param_at<uint64_t>(f.recorder->launches[0], 0) == 0x10000);
  CHECK(f.recorder->clears[0].command.bytes == 4);
  const size_t before = num_allocations();
  f.recorder->forget();
  CHECK(sagejit_kernel_launch(f.kernel, &f.args, SAGEJIT_BOTH, nullptr, nullptr) == SAGEJIT_OK);
  CHECK(num_allocations() == before);
}

TEST_CASE("api: each wrong structure is refused by name, and the kernel stays usable") {
  struct Wrong {
    std::function<void(Fixture&)> change;
    const char* message;
  };
  const std::vector<Wrong> table = {
      {[](Fixture& f) { f.args.struct_size = 0; },
       "args.struct_size is 0: set it to sizeof the structure, 64 bytes"},
      {[](Fixture& f) { f.args.reserved = 7; }, "args.reserved is 7: set it to 0"},
      {[](Fixture& f) { f.q.struct_size = 4; },
       "q.struct_size is 4: set it to sizeof the structure, 88 bytes"},
      {[](Fixture& f) { f.v.reserved = 1; }, "v.reserved is 1: set it to 0"},
      {[](Fixture& f) { f.q.dtype = 0; },
       "q.dtype is 0: use SAGEJIT_F16, SAGEJIT_BF16 or SAGEJIT_F32"},
      {[](Fixture& f) { f.q.dtype = SAGEJIT_F32; },
       "q is f32, but the kernel was made for f16: convert it, or change the variant's io types"},
      {[](Fixture& f) { f.k.ndim = 5; }, "k.ndim is 5: tensors have 1 to 4 axes"},
      {[](Fixture& f) { f.k.ndim = 0; }, "k.ndim is 0: tensors have 1 to 4 axes"},
      {[](Fixture& f) { f.args.k = nullptr; }, "k is null: pass a tensor [b, hkv, n, d]"},
      {[](Fixture& f) { f.args.lse = nullptr; }, "lse is null: pass a tensor [b, hq, m]"},
      {[](Fixture& f) { f.o.data = nullptr; }, "o.data is null"},
      {[](Fixture& f) { f.args.workspace = nullptr; },
       "workspace is null: this problem needs 5376 bytes"},
      {[](Fixture& f) { f.args.workspace_bytes = 1; },
       "workspace_bytes is 1: this problem needs 5376 bytes"},
  };
  Fixture f;
  for (const Wrong& wrong : table) {
    f.reset();
    wrong.change(f);
    check(f.launch(), SAGEJIT_E_ARGUMENT, wrong.message);
    CHECK(f.recorder->num_launches == 0);
    f.reset();
    check(f.launch(), SAGEJIT_OK, "");
  }
  for (const uint32_t phases : {0u, 4u, 7u}) {
    check(f.launch(phases), SAGEJIT_E_ARGUMENT,
          fmt::format("phases is {:#x}: use SAGEJIT_QUANTIZE, SAGEJIT_ATTEND or SAGEJIT_BOTH",
                      phases));
  }
}

TEST_CASE("api: a longer structure is accepted if what is unknown is zero") {
  Fixture f;
  struct Longer {
    sagejit_attention_args known;
    uint64_t unknown;
  } longer = {f.args, 0};
  longer.known.struct_size = sizeof(longer);
  const sagejit_stream stream = nullptr;
  check(call(sagejit_kernel_launch, f.kernel, &longer.known, 3u, stream), SAGEJIT_OK, "");
  longer.unknown = 1;
  check(call(sagejit_kernel_launch, f.kernel, &longer.known, 3u, stream), SAGEJIT_E_ARGUMENT,
        "args has 72 bytes and uses fields that this library, version 100, does not know");
}

TEST_CASE("api: variants are parsed, chosen and overridden") {
  Fixture f;
  CHECK(sagejit_variant_name(f.variant) == std::string("toy"));
  // Canonical text gives the variant back.
  const std::string canonical = sagejit_variant_text(f.variant);
  sagejit_variant* again = nullptr;
  check(
      call(sagejit_variant_parse, &f.context, canonical.data(), canonical.size(), nullptr, &again),
      SAGEJIT_OK, "");
  CHECK(sagejit_variant_text(again) == canonical);
  sagejit_variant_destroy(again);

  const std::string sweep =
      "s {\n  head_dim in {64, 128}\n  q = int8 per block(128)\n  k = int8 per block(64)\n}\n";
  sagejit_variant* variant = nullptr;
  check(call(sagejit_variant_parse, &f.context, sweep.data(), sweep.size(), nullptr, &variant),
        SAGEJIT_E_ARGUMENT,
        "2 variants are meant; choose one with options.selector:\n  s[head_dim=64]\n  "
        "s[head_dim=128]");
  CHECK(variant == nullptr);
  sagejit_variant_options options = {};
  options.struct_size = sizeof(options);
  options.selector = "head_dim=128";
  const char* overrides[] = {"lse=on"};
  options.overrides = overrides;
  options.num_overrides = 1;
  check(call(sagejit_variant_parse, &f.context, sweep.data(), sweep.size(), &options, &variant),
        SAGEJIT_OK, "");
  REQUIRE(variant);
  CHECK(variant->request.variant.head_dim == 128);
  CHECK(variant->request.variant.lse);
  sagejit_variant_destroy(variant);
  options.overrides = nullptr;
  check(call(sagejit_variant_parse, &f.context, sweep.data(), sweep.size(), &options, &variant),
        SAGEJIT_E_ARGUMENT, "options.overrides is null");
}

TEST_CASE("api: a wrong text is SAGEJIT_E_SPEC with its place") {
  Fixture f;
  const std::string text = "v {\n  head_dim = sixty\n}\n";
  sagejit_variant* variant = nullptr;
  sagejit_variant_options options = {};
  options.struct_size = sizeof(options);
  options.file_name = "my.attn";
  const Outcome outcome =
      call(sagejit_variant_parse, &f.context, text.data(), text.size(), &options, &variant);
  CHECK(outcome.status == SAGEJIT_E_SPEC);
  CHECK(outcome.message.find("my.attn:2:") != std::string::npos);
  CHECK(variant == nullptr);
}

TEST_CASE("api: failures of the compiler carry status, message and log") {
  Fixture f;
  const std::string text =
      "other {\n  head_dim = 64\n  q = int8 per block(128)\n  k = int8 per block(64)\n}\n";
  sagejit_variant* variant = nullptr;
  check(call(sagejit_variant_parse, &f.context, text.data(), text.size(), nullptr, &variant),
        SAGEJIT_OK, "");
  sagejit_kernel* kernel = nullptr;
  f.compiler->failure = [] { throw Error(ErrorKind::kToolchain, "refused", "line 1 of the log"); };
  sagejit_error* error = nullptr;
  CHECK(sagejit_kernel_get(&f.context, variant, &f.device, &kernel, &error) == SAGEJIT_E_TOOLCHAIN);
  CHECK(sagejit_error_message(error) == std::string("refused"));
  CHECK(sagejit_error_log(error) == std::string("line 1 of the log"));
  sagejit_error_destroy(error);
  f.compiler->failure = [] { throw std::bad_alloc(); };
  check(call(sagejit_kernel_get, &f.context, variant, &f.device, &kernel), SAGEJIT_E_MEMORY,
        "host memory ran out");
  f.compiler->failure = [] { throw std::runtime_error("surprise"); };
  check(call(sagejit_kernel_get, &f.context, variant, &f.device, &kernel), SAGEJIT_E_INTERNAL,
        "surprise");
  f.compiler->failure = [] { throw 42; };
  check(call(sagejit_kernel_get, &f.context, variant, &f.device, &kernel), SAGEJIT_E_INTERNAL,
        "an exception of unknown type");
  f.compiler->failure = nullptr;
  check(call(sagejit_kernel_get, &f.context, variant, &f.device, &kernel), SAGEJIT_OK, "");
  sagejit_kernel_destroy(kernel);
  sagejit_variant_destroy(variant);
}

TEST_CASE("api: options of a context are checked") {
  sagejit_context_options options = {};
  sagejit_context* context = nullptr;
  check(call(sagejit_context_create, &options, &context), SAGEJIT_E_ARGUMENT,
        "options.struct_size is 0: set it to sizeof the structure, 64 bytes");
  options.struct_size = sizeof(options);
  options.flags = 0x18;
  check(call(sagejit_context_create, &options, &context), SAGEJIT_E_ARGUMENT,
        "options.flags is 0x18: bits 0x18 are not known");
  options.flags = 0;
  options.cache_dir = "relative";
  check(call(sagejit_context_create, &options, &context), SAGEJIT_E_ARGUMENT,
        "options.cache_dir is 'relative': pass an absolute path");
  options.cache_dir = nullptr;
  options.backend = "nvcc";
  check(call(sagejit_context_create, &options, &context), SAGEJIT_E_ARGUMENT,
        "options.backend is 'nvcc': use one of auto, cuda, ptx, llvm");
  options.backend = "auto";
  options.assembler = "as";
  check(call(sagejit_context_create, &options, &context), SAGEJIT_E_ARGUMENT,
        "options.assembler is 'as': use one of auto, nvrtc, ptxas, driver");
  CHECK(context == nullptr);
}

TEST_CASE("api: options of a program that was built before back ends could be chosen") {
  sagejit_context_options options = {};
  options.flags = SAGEJIT_NO_DISK_CACHE;
  options.backend = "beyond the end of the structure";
  options.struct_size = offsetof(sagejit_context_options, backend);
  sagejit_context* context = nullptr;
  check(call(sagejit_context_create, &options, &context), SAGEJIT_OK, "");
  sagejit_context_destroy(context);
  --options.struct_size;
  check(call(sagejit_context_create, &options, &context), SAGEJIT_E_ARGUMENT,
        "options.struct_size is 39: set it to sizeof the structure, 64 bytes");
}

TEST_CASE("api: the back end that was chosen is the one that is used") {
  const std::string text = "v { head_dim = 16; q = int8 per head; p = f16; v = f16 }";
  sagejit_device* device = nullptr;
  check(call(sagejit_device_open, "emulator", &device), SAGEJIT_OK, "");
  struct Case {
    const char *backend, *nvrtc, *described;
  };
  for (const Case& c : {Case{"ptx", "/nonexistent.so", "\nbackend: ptx\nschedule: "},
                        {nullptr, "/nonexistent.so", "\nbackend: ptx\nschedule: "},
                        {"cuda", "/nonexistent.so", nullptr}}) {
    sagejit_context_options options = {};
    options.struct_size = sizeof(options);
    options.flags = SAGEJIT_NO_DISK_CACHE;
    options.backend = c.backend;
    options.nvrtc = c.nvrtc;
    sagejit_context* context = nullptr;
    check(call(sagejit_context_create, &options, &context), SAGEJIT_OK, "");
    sagejit_variant* variant = nullptr;
    check(call(sagejit_variant_parse, context, text.data(), text.size(), nullptr, &variant),
          SAGEJIT_OK, "");
    sagejit_kernel* kernel = nullptr;
    const auto outcome = call(sagejit_kernel_get, context, variant, device, &kernel);
    CHECK(outcome.status == (c.described ? SAGEJIT_OK : SAGEJIT_E_TOOLCHAIN));
    if (kernel) {
      std::array<char, 4096> description;
      size_t bytes = description.size();
      CHECK(sagejit_kernel_describe(kernel, description.data(), &bytes) == SAGEJIT_OK);
      CHECK_THAT(description.data(), Catch::Contains(c.described));
    } else {
      CHECK_THAT(outcome.message, Catch::Contains("NVRTC") && Catch::Contains("/nonexistent.so"));
    }
    sagejit_kernel_destroy(kernel);
    sagejit_variant_destroy(variant);
    sagejit_context_destroy(context);
  }
  sagejit_device_destroy(device);
}

TEST_CASE("api: an unusable cache directory is a warning, not an error") {
  struct Seen {
    int level = 0;
    std::string message;
  } seen;
  sagejit_context_options options = {};
  options.struct_size = sizeof(options);
  options.cache_dir = "/dev/null";
  options.log = [](void* user, int level, const char* message) {
    *static_cast<Seen*>(user) = {level, message};
  };
  options.log_user = &seen;
  sagejit_context* context = nullptr;
  check(call(sagejit_context_create, &options, &context), SAGEJIT_OK, "");
  CHECK(seen.level == SAGEJIT_LOG_WARNING);
  CHECK(seen.message ==
        "the kernel cache is off: directory '/dev/null': it cannot be opened: Not a directory");
  sagejit_context_destroy(context);
}

TEST_CASE("api: counters") {
  Fixture f;
  sagejit_kernel* kernel = nullptr;
  check(call(sagejit_kernel_get, &f.context, f.variant, &f.device, &kernel), SAGEJIT_OK, "");
  sagejit_counters counters = {};
  CHECK(sagejit_context_counters(&f.context, &counters) == SAGEJIT_E_ARGUMENT);
  counters.struct_size = sizeof(counters);
  CHECK(sagejit_context_counters(&f.context, &counters) == SAGEJIT_OK);
  CHECK(counters.memory_hits == 1);
  CHECK(counters.disk_hits == 0);
  CHECK(counters.misses == 1);
  CHECK(counters.compiles == 1);
  sagejit_kernel_destroy(kernel);
}

TEST_CASE("api: describe says where the kernel came from, in a buffer of any size") {
  Fixture f;
  const std::string expected =
      "variant: toy\ndevice: fake\ntarget: sm_80\nbackend: nvcc\nschedule: block_m=1\norigin: jit\n"
      "kernel toy_prepare: 32 threads, 0 B dynamic shared memory\n"
      "kernel toy_attend: 32 threads, 0 B dynamic shared memory\n";
  size_t bytes = 0;
  CHECK(sagejit_kernel_describe(f.kernel, nullptr, &bytes) == SAGEJIT_OK);
  CHECK(bytes == expected.size() + 1);
  std::vector<char> buffer(bytes, 'x');
  CHECK(sagejit_kernel_describe(f.kernel, buffer.data(), &bytes) == SAGEJIT_OK);
  CHECK(buffer.data() == expected);
  bytes = 12;
  CHECK(sagejit_kernel_describe(f.kernel, buffer.data(), &bytes) == SAGEJIT_E_ARGUMENT);
  CHECK(buffer.data() == std::string("variant: to"));
  CHECK(bytes == expected.size() + 1);
  bytes = 0;
  CHECK(sagejit_kernel_describe(f.kernel, buffer.data(), &bytes) == SAGEJIT_E_ARGUMENT);
  sagejit_kernel* again = nullptr;
  check(call(sagejit_kernel_get, &f.context, f.variant, &f.device, &again), SAGEJIT_OK, "");
  bytes = buffer.size() + 3;
  buffer.resize(bytes);
  CHECK(sagejit_kernel_describe(again, buffer.data(), &bytes) == SAGEJIT_OK);
  CHECK(std::string(buffer.data()).find("origin: memory\n") != std::string::npos);
  sagejit_kernel_destroy(again);
}

TEST_CASE("api: devices by name") {
  sagejit_device* device = nullptr;
  check(call(sagejit_device_open, "gpu", &device), SAGEJIT_E_ARGUMENT,
        "device 'gpu' is not known: use 'auto', 'cuda', 'cuda:N', 'emulator' or 'emulator:TARGET'");
  check(call(sagejit_device_open, "cuda:x", &device), SAGEJIT_E_ARGUMENT,
        "device 'cuda:x' is not known: use 'auto', 'cuda', 'cuda:N', 'emulator' or "
        "'emulator:TARGET'");
  CHECK(call(sagejit_device_open, "emulator:sm_50", &device).status == SAGEJIT_E_UNSUPPORTED);
  CHECK(call(sagejit_device_open, "cuda:4096", &device).status == SAGEJIT_E_DEVICE);
  CHECK(device == nullptr);
  check(call(sagejit_device_open, "emulator:sm_90a", &device), SAGEJIT_OK, "");
  CHECK(sagejit_device_name(device) == std::string("emulator:sm_90a"));
  CHECK(sagejit_device_target(device) == std::string("sm_90a"));
  CHECK(sagejit_device_product(device) == std::string("PTX emulator"));
  sagejit_device_destroy(device);
  check(call(sagejit_device_open, "emulator", &device), SAGEJIT_OK, "");
  CHECK(sagejit_device_target(device) == std::string("sm_80"));
  sagejit_device_destroy(device);
}

TEST_CASE("api: device memory") {
  sagejit_device* device = nullptr;
  check(call(sagejit_device_open, "emulator", &device), SAGEJIT_OK, "");
  void* memory = nullptr;
  check(call(sagejit_device_alloc, device, size_t{1000}, &memory), SAGEJIT_OK, "");
  CHECK(reinterpret_cast<uintptr_t>(memory) % 256 == 0);
  const std::string text = "to the device and back";
  std::string back(text.size(), ' ');
  const sagejit_stream stream = nullptr;
  check(call(sagejit_device_copy_in, device, memory, text.data(), text.size(), stream), SAGEJIT_OK,
        "");
  check(call(sagejit_device_copy_out, device, back.data(), memory, back.size(), stream), SAGEJIT_OK,
        "");
  check(call(sagejit_device_synchronize, device, stream), SAGEJIT_OK, "");
  CHECK(back == text);
  check(call(sagejit_device_copy_in, device, nullptr, text.data(), size_t{1}, stream),
        SAGEJIT_E_ARGUMENT, "to is null");
  check(call(sagejit_device_copy_out, device, back.data(), nullptr, size_t{1}, stream),
        SAGEJIT_E_ARGUMENT, "from is null");
  check(call(sagejit_device_free, device, memory), SAGEJIT_OK, "");
  check(call(sagejit_device_free, device, nullptr), SAGEJIT_OK, "");
  check(call(sagejit_device_alloc, device, SIZE_MAX, &memory), SAGEJIT_E_MEMORY,
        fmt::format("emulator:sm_80 cannot allocate {} bytes", SIZE_MAX));
  CHECK(memory == nullptr);
  sagejit_device_destroy(device);
}

TEST_CASE("api: our own share of a forward call is small") {
  // The plan of a real variant, on a device that does nothing.
  const Variant variant =
      resolve_variants("v.attn",
                       "v { head_dim = 128; q = int8 per thread(32); k = int8 per thread(64); "
                       "smooth_k = mean; p = e4m3; v = e4m3 per channel; lse = on }")
          .at(0);
  const Target& target = find_target("sm_90a");
  Artifact artifact = toy_artifact();
  artifact.tensors = {.head_dim = 128, .value_head_dim = 128, .lse = true};
  artifact.plan = make_forward_plan(variant, default_schedule(variant, target), target).plan;
  auto device = std::make_shared<FakeDevice>();
  device->records = false;
  const sagejit_kernel kernel = {std::make_shared<const Kernel>(device, artifact), Origin::kMemory};
  Fixture f;
  for (sagejit_tensor* t : {&f.q, &f.k, &f.v, &f.o}) {
    t->shape[3] = 128;
    for (int axis = 0; axis < 3; ++axis) t->strides[axis] *= 2;
  }
  f.args.workspace_bytes = size_t{1} << 30;
  constexpr int kCalls = 1000;
  double best_us = 1e9;
  for (int round = 0; round < 20; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kCalls; ++i) {
      REQUIRE(sagejit_kernel_launch(&kernel, &f.args, SAGEJIT_BOTH, nullptr, nullptr) ==
              SAGEJIT_OK);
    }
    const std::chrono::duration<double, std::micro> us = std::chrono::steady_clock::now() - start;
    best_us = std::min(best_us, us.count() / kCalls);
  }
  WARN("one call of " << artifact.plan.launches.size() << " kernels: " << best_us << " us");
  if (!kSanitized) CHECK(best_us < 10);  // on a busy machine, too
}

TEST_CASE("api: handles are destroyed in any order") {
  sagejit_kernel* kernel = nullptr;
  Fixture reference;
  {
    Fixture f;
    check(call(sagejit_kernel_get, &f.context, f.variant, &f.device, &kernel), SAGEJIT_OK, "");
  }
  CHECK(sagejit_kernel_launch(kernel, &reference.args, SAGEJIT_BOTH, nullptr, nullptr) ==
        SAGEJIT_OK);
  sagejit_kernel_destroy(kernel);
}

}  // namespace sagejit::testing
