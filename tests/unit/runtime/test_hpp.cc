// sagejit.hpp: objects that clean up after themselves, errors as exceptions. Sees the public
// headers alone.
#include <sagejit/sagejit.hpp>
#include <string>
#include <type_traits>

#include "tests/support/catch.h"

namespace {

constexpr std::string_view kText =
    "v {\n  head_dim = 64\n  q = int8 per block(128)\n  k = int8 per block(64)\n}\n";

sagejit::ContextOptions without_disk() {
  sagejit::ContextOptions options;
  options.flags = SAGEJIT_NO_DISK_CACHE;
  return options;
}

}  // namespace

TEST_CASE("hpp: handles move and do not copy") {
  static_assert(std::is_nothrow_move_constructible_v<sagejit::Kernel>);
  static_assert(!std::is_copy_constructible_v<sagejit::Kernel>);
  static_assert(!std::is_copy_constructible_v<sagejit::Variant>);
  static_assert(!std::is_copy_constructible_v<sagejit::Buffer>);
  sagejit::Context context(without_disk());
  sagejit::Variant variant = context.parse(kText);
  const sagejit::Variant moved = std::move(variant);
  CHECK(moved.name() == "v");
  CHECK(context.parse(moved.text()).text() == moved.text());
}

TEST_CASE("hpp: options reach the context") {
  sagejit::ContextOptions options = without_disk();
  options.backend = "nvcc";
  CHECK_THROWS_WITH(sagejit::Context(options), Catch::StartsWith("options.backend is 'nvcc'"));
  options.backend = "ptx";
  options.assembler = "as";
  CHECK_THROWS_WITH(sagejit::Context(options), Catch::StartsWith("options.assembler is 'as'"));
  options.assembler = "driver";
  options.ptxas = options.nvrtc = "/nonexistent";
  CHECK_NOTHROW(sagejit::Context(options));
}

TEST_CASE("hpp: errors are exceptions with status and message") {
  const sagejit::Context context(without_disk());
  try {
    context.parse("v {\n  head_dim = 3.5.\n}\n");
    FAIL("no exception");
  } catch (const sagejit::Error& error) {
    CHECK(error.status() == SAGEJIT_E_SPEC);
    CHECK(std::string(error.what()).find("<variant>:2:") != std::string::npos);
    CHECK(error.log() == "");
  }
  CHECK_THROWS_AS(sagejit::Device("nothing"), sagejit::Error);
  // Both are usable afterwards.
  CHECK(context.parse(kText).name() == "v");
}

TEST_CASE("hpp: selectors and overrides") {
  const sagejit::Context context(without_disk());
  CHECK(context
            .parse("v {\n  head_dim in {64, 128}\n  q = int8 per block(128)\n"
                   "  k = int8 per block(64)\n}\n",
                   "head_dim=128", {"lse=on"})
            .text()
            .find("128") != std::string::npos);
}

TEST_CASE("hpp: buffers keep their device open and are freed with the object") {
  sagejit::Buffer buffer;
  {
    const sagejit::Device device("emulator");
    buffer = device.allocate(100);
    const std::string text = "hello";
    std::string back(5, ' ');
    device.copy_in(buffer.data(), text.data(), text.size());
    device.copy_out(back.data(), buffer.data(), back.size());
    device.synchronize();
    CHECK(back == text);
    CHECK(device.name() == "emulator:sm_80");
  }
  CHECK(buffer.bytes() == 100);
  CHECK(buffer.data() != nullptr);
}

TEST_CASE("hpp: a policy tells each layer's variant") {
  const sagejit::Policy policy(
      "sagejit policy 1\n[variants]\na { head_dim = 64 }\nb { head_dim = 64; lse = on }\n"
      "[layers]\nfirst 0..4 b\ndefault a\n");
  CHECK(policy.find("first").name() == "b");
  CHECK(policy.find("first", 5).name() == "a");
  const sagejit::Context context(without_disk());
  CHECK(context.parse(policy.find("first").text()).name() == "b");
  try {
    sagejit::Policy("sagejit policy 2\n", "model.policy");
    FAIL("no exception");
  } catch (const sagejit::Error& error) {
    CHECK(error.status() == SAGEJIT_E_SPEC);
    CHECK(std::string(error.what()).find("model.policy:1:16: error: ") == 0);
  }
}

TEST_CASE("hpp: contiguous and strided tensors") {
  int data = 0;
  const sagejit::Tensor dense(SAGEJIT_F16, &data, {2, 3, 4, 8});
  CHECK(dense.struct_size == sizeof(sagejit_tensor));
  CHECK(dense.ndim == 4);
  CHECK(dense.strides[0] == 96);
  CHECK(dense.strides[3] == 1);
  const sagejit::Tensor strided(SAGEJIT_F32, &data, {2, 3, 4}, {100, 10, 1});
  CHECK(strided.ndim == 3);
  CHECK(strided.shape[1] == 3);
  CHECK(strided.strides[0] == 100);
}

TEST_CASE("hpp: the log is called") {
  std::string seen;
  sagejit::ContextOptions options;
  options.cache_dir = "/dev/null";
  options.log = [&](int level, const char* message) { seen += std::to_string(level) + message; };
  const sagejit::Context context(std::move(options));
  CHECK(seen ==
        "1the kernel cache is off: directory '/dev/null': it cannot be opened: Not a directory");
  CHECK(context.counters().compiles == 0);
}
