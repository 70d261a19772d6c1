// Program, and launches: checks, set-up, blocks over host threads.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <thread>

#include "runtime/device/emulator/decode/decode.h"
#include "runtime/device/emulator/emulator.h"
#include "runtime/device/emulator/machine/block.h"

namespace sagejit::emulator {

std::string_view Module::line_text(uint32_t line) const {
  return Source(source).line_text(line);
}

Program Program::parse(std::string_view ptx) {
  auto module = std::make_shared<Module>();
  module->source = std::string(ptx);
  const Source source(module->source);
  module->ast = parse_module(module->source);
  for (AstKernel& ast : module->ast.kernels) {
    module->kernels.push_back(decode_kernel(source, module->ast, ast));
    module->infos.push_back(module->kernels.back()->info);
  }
  module->ast.kernels.clear();  // decoded; only the variables are still needed
  Program program;
  program.module_ = std::move(module);
  return program;
}

const std::vector<KernelInfo>& Program::kernels() const {
  return module_->infos;
}

namespace {

[[noreturn]] void bad_launch(const LaunchConfig& config, std::string message) {
  ErrorInfo e;
  e.kind = ErrorKind::kBadLaunch;
  e.message = std::move(message);
  e.kernel = config.kernel;
  throw Error(std::move(e));
}

const Kernel& find_kernel(const Module& module, const LaunchConfig& config) {
  std::string names;
  for (const auto& k : module.kernels) {
    if (k->info.name == config.kernel) return *k;
    names += (names.empty() ? "" : ", ") + k->info.name;
  }
  bad_launch(config,
             fmt::format("the program has no kernel '{}'; it has: {}", config.kernel, names));
}

constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kMaxSharedBytes = 227 * 1024;  // sm_90, the largest of the targets
constexpr uint32_t kMaxGridYz = 65535;

void check_shape(const LaunchConfig& c, const KernelInfo& info) {
  uint64_t threads = 1;
  uint64_t allowed = 1;
  for (size_t i = 0; i < 3; ++i) {
    threads *= c.block[i];
    allowed *= info.max_ntid[i];
    if (c.grid[i] == 0 || c.block[i] == 0) bad_launch(c, "a grid or block dimension is 0");
    if (i > 0 && c.grid[i] > kMaxGridYz) {
      bad_launch(c, fmt::format("grid dimension {} is {}, more than {}", i, c.grid[i], kMaxGridYz));
    }
    if (info.req_ntid[0] != 0 && c.block[i] != info.req_ntid[i]) {
      bad_launch(c, fmt::format("the block has {} threads in dimension {}, .reqntid demands {}",
                                c.block[i], i, info.req_ntid[i]));
    }
  }
  if (threads > kMaxThreads)
    bad_launch(c, fmt::format("{} threads in a block, more than {}", threads, kMaxThreads));
  if (info.max_ntid[0] != 0 && threads > allowed) {
    bad_launch(c, fmt::format("{} threads in a block, .maxntid allows {}", threads, allowed));
  }
}

// What the assembler gives a thread of a kernel that uses setmaxnreg: an even share of the
// register file among the threads of the blocks that shall fit, in steps of 8.
uint32_t thread_registers(const Kernel& kernel) {
  constexpr uint32_t kRegisterFile = 65536;
  constexpr uint32_t kStep = 8;
  uint32_t threads = 1;
  for (size_t i = 0; i < 3; ++i) {
    threads *= kernel.info.req_ntid[0] != 0 ? kernel.info.req_ntid[i] : kernel.info.max_ntid[i];
  }
  if (threads == 0) return 0;
  uint32_t share = kRegisterFile / (threads * std::max(1u, kernel.min_blocks));
  if (kernel.max_thread_registers != 0) share = std::min(share, kernel.max_thread_registers);
  return std::min(share, 256u) / kStep * kStep;
}

// Module variables get storage of their own and become memory ranges.
void place_variables(Launch& launch) {
  for (const Variable& v : launch.module->ast.variables) {
    if (v.space != Space::kGlobal && v.space != Space::kConst) {
      launch.variables.emplace_back();
      continue;
    }
    // 256 bytes of slack for alignment: vectors of bytes are aligned to 16 only.
    std::vector<std::byte> storage(v.bytes + 256);
    auto address = reinterpret_cast<uintptr_t>(storage.data());
    address = (address + 255) / 256 * 256;
    std::copy(v.init.begin(), v.init.end(), reinterpret_cast<std::byte*>(address));
    launch.memory.push_back({address, v.bytes, v.space == Space::kGlobal, v.name});
    launch.variables.push_back(std::move(storage));
  }
}

uint64_t variable_address(const Launch& launch, int32_t index) {
  const auto raw = reinterpret_cast<uintptr_t>(launch.variables[static_cast<size_t>(index)].data());
  return (raw + 255) / 256 * 256;
}

void fill_constants(Launch& launch) {
  launch.constants.resize(launch.kernel->constant_bytes + 64);
  for (const Constant& c : launch.kernel->constants) {
    const uint64_t value = c.bits + (c.variable >= 0 ? variable_address(launch, c.variable) : 0);
    const size_t bytes = c.bytes == 0 ? 4 : c.bytes;
    const size_t count = c.bytes == 0 ? 1 : kWarpLanes;
    for (size_t l = 0; l < count; ++l) {
      std::memcpy(launch.constants.data() + c.offset + l * bytes, &value, bytes);
    }
  }
}

void sort_memory(Launch& launch, const LaunchConfig& config) {
  auto& memory = launch.memory;
  std::sort(memory.begin(), memory.end(),
            [](const MemoryRange& a, const MemoryRange& b) { return a.address < b.address; });
  for (size_t i = 1; i < memory.size(); ++i) {
    if (memory[i - 1].address + memory[i - 1].bytes > memory[i].address) {
      bad_launch(config, fmt::format("memory ranges '{}' and '{}' overlap", memory[i - 1].name,
                                     memory[i].name));
    }
  }
}

Launch prepare(const Program& program, const LaunchConfig& config) {
  Launch launch;
  launch.module = &program.module();
  launch.kernel = &find_kernel(*launch.module, config);
  const KernelInfo& info = launch.kernel->info;
  check_shape(config, info);
  if (config.params.size() != info.param_bytes) {
    bad_launch(config, fmt::format("{} parameter bytes given, the kernel takes {}",
                                   config.params.size(), info.param_bytes));
  }
  launch.options = config.options;
  launch.grid = {config.grid[0], config.grid[1], config.grid[2]};
  launch.block = {config.block[0], config.block[1], config.block[2]};
  launch.thread_registers = thread_registers(*launch.kernel);
  launch.num_threads = config.block[0] * config.block[1] * config.block[2];
  const uint32_t align = launch.kernel->dynamic_shared_align;
  const uint32_t fixed = kSharedBase + launch.kernel->static_shared_bytes;
  launch.dynamic_shared_bytes = config.dynamic_shared_bytes;
  launch.shared_end = config.dynamic_shared_bytes == 0
                          ? fixed
                          : (fixed + align - 1) / align * align + config.dynamic_shared_bytes;
  if (launch.shared_end - kSharedBase > kMaxSharedBytes) {
    bad_launch(config, fmt::format("{} bytes of shared memory, more than {}",
                                   launch.shared_end - kSharedBase, kMaxSharedBytes));
  }
  launch.params.assign(config.params.begin(), config.params.end());
  launch.memory.assign(config.memory.begin(), config.memory.end());
  place_variables(launch);
  sort_memory(launch, config);
  fill_constants(launch);
  launch.is_dependent = config.is_dependent;
  return launch;
}

void add(Report& sum, const Report& r) {
  for (auto field :
       {&Report::warp_steps, &Report::instructions, &Report::divergent_steps, &Report::barriers,
        &Report::mma, &Report::global_accesses, &Report::async_copies, &Report::shared_accesses,
        &Report::shared_wavefronts, &Report::shared_conflicts, &Report::wgmma, &Report::bulk_copies,
        &Report::mbarrier_phases}) {
    sum.*field += r.*field;
  }
}

// Hands out a launch's blocks in order. After a failure, blocks behind it are not started; those
// before it are all in flight already, so the failure of the lowest block is the one reported,
// whatever the timing; of blocks that wait for one another, that of the lowest that did not wait in
// vain.
class Dispatcher {
 public:
  Dispatcher(Launch launch, Turns& turns, size_t number) : launch_(std::move(launch)) {
    launch_.turns = &turns;
    launch_.number = number;
    limit_ = count_ = uint64_t{launch_.grid[0]} * launch_.grid[1] * launch_.grid[2];
    unsigned threads = launch_.options.num_threads;
    if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
    num_threads_ = static_cast<unsigned>(std::min<uint64_t>(threads, count_));
    turns.add(num_threads_, launch_.is_dependent);
  }

  unsigned num_threads() const { return num_threads_; }

  // What each of the threads does.
  void work() {
    if (launch_.turns->enter(launch_.number)) run_blocks();
    launch_.turns->leave(launch_.number);
  }

  // When all threads are done.
  const Report& report() const {
    if (error_) std::rethrow_exception(error_);
    return report_;
  }

 private:
  void run_blocks() {
    std::unique_ptr<Block> block;
    for (uint64_t b = next_++; b < limit_.load(); b = next_++) {
      if (launch_.turns->another_failed(launch_.number)) break;
      try {
        if (!block) block = std::make_unique<Block>(launch_);
        block->run(b);
      } catch (const Abandoned&) {
        break;
      } catch (...) {
        launch_.turns->fail(launch_.number);
        const std::lock_guard lock(mutex_);
        if (b < limit_.load()) {
          limit_ = b;
          error_ = std::current_exception();
        }
      }
    }
    const std::lock_guard lock(mutex_);
    if (block) add(report_, block->report);
  }

  Launch launch_;
  uint64_t count_ = 0;
  unsigned num_threads_ = 0;
  std::atomic<uint64_t> next_{0};
  std::atomic<uint64_t> limit_;  // lowest failed block, or the number of blocks
  std::mutex mutex_;
  std::exception_ptr error_;
  Report report_;
};

}  // namespace

std::vector<Report> run(std::span<const QueuedLaunch> launches) {
  Turns turns;
  std::deque<Dispatcher> dispatchers;
  for (const QueuedLaunch& launch : launches) {
    dispatchers.emplace_back(prepare(launch.program, launch.config), turns, dispatchers.size());
  }
  // The caller's is one of the first launch's threads.
  std::vector<std::thread> threads;
  for (Dispatcher& dispatcher : dispatchers) {
    const unsigned callers = &dispatcher == &dispatchers.front() ? 1 : 0;
    for (unsigned i = callers; i < dispatcher.num_threads(); ++i) {
      threads.emplace_back([&dispatcher] { dispatcher.work(); });
    }
  }
  if (!dispatchers.empty()) dispatchers.front().work();
  for (std::thread& thread : threads) thread.join();
  std::vector<Report> reports;
  for (const Dispatcher& dispatcher : dispatchers) reports.push_back(dispatcher.report());
  return reports;
}

Report run(const Program& program, const LaunchConfig& config) {
  const QueuedLaunch launch{program, config};
  return run(std::span(&launch, 1)).front();
}

}  // namespace sagejit::emulator
