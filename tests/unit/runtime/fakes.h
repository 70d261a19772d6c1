// Stand-ins for the device and the compiler, and the toy artifact that both real devices can run.
#pragma once

#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "compiler/support/error.h"
#include "runtime/context/context.h"
#include "runtime/device/device.h"
#include "runtime/launch/kernel.h"

namespace sagejit::testing {

// Sanitizers slow everything down: times are then shown, not judged.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_file(const std::filesystem::path& path, std::string_view contents) {
  std::ofstream(path, std::ios::binary) << contents;
}

// A directory that is removed with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = std::filesystem::temp_directory_path() / "sagejit-test-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return path_ / name; }
  std::string str() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The message of the Error that `body` throws, "kind: message"; "" if it throws none.
template <typename Body>
std::string error_of(Body body, ErrorKind expected) {
  try {
    body();
  } catch (const Error& error) {
    return error.kind() == expected ? error.message() : "wrong kind: " + error.message();
  }
  return "";
}

// Records what it is told to do, in fixed-size storage.
class FakeDevice final : public Device {
 public:
  struct Launch {
    std::string_view kernel;  // points into the artifact's names
    std::array<uint32_t, 3> grid;
    uint32_t block_threads, dynamic_smem_bytes;
    std::array<std::byte, 256> params;
    size_t param_bytes;
    Stream stream;
    std::array<MemoryRange, 16> memory;
    size_t num_ranges;
  };
  struct Clear {
    ClearCommand command;
    size_t launches_before;
  };

  FakeDevice() {
    info_.name = "fake";
    info_.product = "recorder";
    info_.target = &find_target("sm_80");
  }
  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<LoadedArtifact> load(const Artifact& artifact) override {
    ++num_loads;
    return std::make_unique<Loaded>(artifact);
  }
  void submit(const Submission& submission) override {
    if (!records) return;
    for (const MemoryRange& range : submission.arguments) {
      if (range.address == unreachable) {
        fail(ErrorKind::kArgument, "{} is not memory of fake", range.name);
      }
    }
    for (const ClearCommand& clear : submission.clears) {
      clears.at(num_clears++) = {clear, num_launches};
    }
    for (const LaunchCommand& command : submission.launches) record_launch(command, submission);
  }
  void record_launch(const LaunchCommand& command, const Submission& submission) {
    Launch& record = launches.at(num_launches++);
    record.kernel = *static_cast<const std::string*>(command.kernel.native);
    record.grid = command.grid;
    record.block_threads = command.block_threads;
    record.dynamic_smem_bytes = command.dynamic_smem_bytes;
    record.param_bytes = command.params.size();
    std::memcpy(record.params.data(), command.params.data(), command.params.size());
    record.stream = submission.stream;
    record.num_ranges = submission.memory.size();
    std::copy(submission.memory.begin(), submission.memory.end(), record.memory.begin());
  }
  uint64_t allocate(uint64_t) override { return 0; }
  void free(uint64_t) override {}
  void copy_in(uint64_t, const void*, uint64_t, Stream) override {}
  void copy_out(void*, uint64_t, uint64_t, Stream) override {}
  void synchronize(Stream) override {}
  std::unique_ptr<Timer> make_timer() override { return nullptr; }

  void forget() { num_launches = num_clears = 0; }

  std::array<Launch, 8> launches = {};
  std::array<Clear, 8> clears = {};
  size_t num_launches = 0, num_clears = 0;
  std::atomic<int> num_loads = 0;
  bool records = true;       // false: does nothing at all, for measurements
  uint64_t unreachable = 0;  // an address that another device owns

 private:
  class Loaded final : public LoadedArtifact {
   public:
    explicit Loaded(const Artifact& artifact) {
      for (const KernelLaunch& launch : artifact.plan.launches) names_.push_back(launch.kernel);
    }
    KernelHandle kernel(const std::string& name) const override {
      for (const std::string& known : names_) {
        if (known == name) return {const_cast<std::string*>(&known)};
      }
      fail(ErrorKind::kInternal, "the artifact has no kernel '{}'", name);
    }

   private:
    std::vector<std::string> names_;
  };
  DeviceInfo info_;
};

// The parameter of a recorded launch at a byte offset.
template <typename T>
T param_at(const FakeDevice::Launch& launch, size_t offset) {
  T value;
  std::memcpy(&value, launch.params.data() + offset, sizeof(T));
  return value;
}

inline KernelParam pointer(const char* name, const char* value) {
  return {name, ParamType::kPointer, -1, SizeExpr(value)};
}
inline KernelParam buffer(const char* name, int index) {
  return {name, ParamType::kPointer, index, SizeExpr()};
}
inline KernelParam i64(const char* value) {
  return {value, ParamType::kI64, -1, SizeExpr(value)};
}
inline KernelParam i32(const char* value) {
  return {value, ParamType::kI32, -1, SizeExpr(value)};
}

inline std::filesystem::path toy_file(const std::string& kernel, const char* extension) {
  return std::filesystem::path(SAGEJIT_RUNTIME_TEST_DATA) / (kernel + extension);
}

// The artifact of data/toy_*.cu: o = q, lse = n + the number of blocks of the first kernel; d = dv
// = 64.
inline Artifact toy_artifact() {
  Artifact artifact;
  artifact.variant_name = "toy";
  artifact.variant_text = "toy text\n";
  artifact.schedule_text = "block_m=1";
  artifact.target = "sm_80";
  artifact.backend = "nvcc";
  artifact.tensors = {.head_dim = 64, .value_head_dim = 64, .lse = true};
  artifact.plan.workspace = {{"copy", SizeExpr("b * hq * m * 64 * 2"), false},
                             {"count", SizeExpr("4"), true}};
  KernelLaunch prepare;
  prepare.kernel = "toy_prepare";
  prepare.phase = Phase::kQuantize;
  prepare.grid = {SizeExpr("m"), SizeExpr("hq"), SizeExpr("b")};
  prepare.block_threads = 32;
  prepare.params = {pointer("q", "q"), i64("q.stride_b"),  i64("q.stride_h"), i64("q.stride_m"),
                    buffer("copy", 0), buffer("count", 1), i32("hq"),         i32("m")};
  KernelLaunch attend = prepare;
  attend.kernel = "toy_attend";
  attend.phase = Phase::kAttend;
  attend.params = {buffer("copy", 0),
                   buffer("count", 1),
                   pointer("o", "o"),
                   i64("o.stride_b"),
                   i64("o.stride_h"),
                   i64("o.stride_m"),
                   pointer("lse", "lse"),
                   i64("lse.stride_b"),
                   i64("lse.stride_h"),
                   i32("hq"),
                   i32("m"),
                   i32("n")};
  artifact.plan.launches = {prepare, attend};
  for (const KernelLaunch& launch : artifact.plan.launches) {
    artifact.modules.push_back({launch.kernel, read_file(toy_file(launch.kernel, ".ptx")), {}});
  }
  return artifact;
}

// Makes toy artifacts; the key is the variant's name and the target, and a generation of
// toolchains.
class FakeCompiler final : public Compiler {
 public:
  CacheKey key(const CompileRequest& request) override {
    return {fmt::format("{} {}", request.variant.name, request.target->name), generation};
  }
  bool is_last_resort(const CompileRequest&) override { return last_resort; }
  Artifact compile(const CompileRequest& request) override {
    if (generation.empty()) fail(ErrorKind::kToolchain, "There is no toolchain.");
    ++started;
    std::this_thread::sleep_for(delay);
    if (failure) failure();
    Artifact artifact = toy_artifact();
    artifact.variant_name = request.variant.name;
    artifact.modules.back().ptx += ptx_suffix;
    return artifact;
  }

  std::atomic<int> started = 0;
  std::chrono::milliseconds delay{0};
  std::function<void()> failure;
  std::string ptx_suffix;
  std::string generation = "1";  // "": there is no toolchain
  bool last_resort = false;
};

// Captures warnings; thread-safe.
class Warnings {
 public:
  Log log() {
    return Log([this](LogLevel, const std::string& message) {
      const std::scoped_lock lock(mutex_);
      messages_.push_back(message);
    });
  }
  std::vector<std::string> messages() const {
    const std::scoped_lock lock(mutex_);
    return messages_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> messages_;
};

inline Tensor tensor(uint64_t address, DType type, std::vector<int64_t> shape) {
  Tensor result;
  result.given = true;
  result.address = address;
  result.dtype = type;
  result.rank = static_cast<int>(shape.size());
  int64_t stride = 1;
  for (int i = result.rank - 1; i >= 0; --i) {
    result.shape[i] = shape[i];
    result.strides[i] = stride;
    stride *= shape[i];
  }
  return result;
}

struct Sizes {
  int64_t b = 2, hq = 4, hkv = 2, m = 5, n = 7;
};

// Contiguous tensors at made-up addresses, for a device that only records.
inline AttentionArgs recorded_args(const Sizes& s) {
  AttentionArgs args;
  args.tensors = {tensor(0x10000, DType::kF16, {s.b, s.hq, s.m, 64}),
                  tensor(0x20000, DType::kF16, {s.b, s.hkv, s.n, 64}),
                  tensor(0x30000, DType::kF16, {s.b, s.hkv, s.n, 64}),
                  tensor(0x40000, DType::kF16, {s.b, s.hq, s.m, 64}),
                  tensor(0x50000, DType::kF32, {s.b, s.hq, s.m})};
  args.workspace = 0x100000;
  args.workspace_bytes = uint64_t{1} << 40;
  return args;
}

}  // namespace sagejit::testing
