// A stand-in for libcuda.so.1 with two GPUs, an H100 and an A100, that compute nothing and take a
// millisecond for every kernel.
//
// It keeps account of contexts as the driver does, tells whose memory an address is, and refuses
// what is used in the wrong context. Device memory starts at (ordinal + 1) << 40.
#include "tests/unit/runtime/fake_cuda.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/device/cuda/driver.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

using namespace sagejit::cuda;

constexpr int kNumDevices = 2;
constexpr int kAddressShift = 40;
constexpr int kErrorInvalidContext = 201;
constexpr int kErrorInvalidHandle = 400;

struct Gpu {
  const char* name;
  int major, minor, num_sms, l2_bytes;
};
constexpr Gpu kGpus[kNumDevices] = {{"Fake H100", 9, 0, 132, 50 << 20},
                                    {"Fake A100", 8, 0, 108, 40 << 20}};

std::array<std::atomic<int>, kNumDevices> num_launches;
std::array<std::atomic<uint64_t>, kNumDevices> next_address;
thread_local std::vector<int> context_stack;
// How PTX is assembled, and what of it came last.
struct Jit {
  int num_silent = 0;  // loads, from the first on, that find the text in the cache: no log
  std::string log;
  int result = kSuccess;
  int num_loads = 0;
  int device = -1;
  std::string text;
};
Jit jit;
std::mutex jit_mutex;
// Launches before the latest two events.
thread_local int at_last_event = 0, at_event_before = 0;

// Contexts, modules and functions are pointers to a byte of their device.
std::array<char, kNumDevices> handles;

template <typename Handle>
Handle handle_of(int device) {
  return reinterpret_cast<Handle>(&handles.at(static_cast<size_t>(device)));
}
int device_of(const void* handle) {
  return static_cast<int>(static_cast<const char*>(handle) - handles.data());
}
int current() {
  return context_stack.empty() ? -1 : context_stack.back();
}
int owner_of(uint64_t address) {
  return static_cast<int>(address >> kAddressShift) - 1;
}
// 0 if the handle is of the current context's device.
int check_current(const void* handle) {
  if (current() < 0) return kErrorInvalidContext;
  return device_of(handle) == current() ? kSuccess : kErrorInvalidHandle;
}

}  // namespace

EXPORTED int fake_cuda_launches(int device) {
  return num_launches.at(static_cast<size_t>(device));
}
EXPORTED int fake_cuda_current_device() {
  return current();
}
EXPORTED void fake_cuda_set_jit(int num_silent, const char* log, int result) {
  const std::scoped_lock lock(jit_mutex);
  jit = {num_silent, log, result, 0, -1, ""};
}
EXPORTED int fake_cuda_jit_loads() {
  return jit.num_loads;
}
EXPORTED int fake_cuda_jit_device() {
  return jit.device;
}
EXPORTED const char* fake_cuda_jit_text() {
  return jit.text.c_str();
}
EXPORTED void fake_cuda_enter(int device) {
  context_stack.push_back(device);
}
EXPORTED void fake_cuda_leave() {
  context_stack.pop_back();
}

EXPORTED int cuInit(unsigned) {
  return kSuccess;
}
EXPORTED int cuDriverGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}
EXPORTED int cuGetErrorName(int, const char** text) {
  *text = "FAKE_ERROR";
  return kSuccess;
}
EXPORTED int cuGetErrorString(int, const char** text) {
  *text = "as the fake driver sees it";
  return kSuccess;
}
EXPORTED int cuDeviceGetCount(int* count) {
  *count = kNumDevices;
  return kSuccess;
}
EXPORTED int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return kSuccess;
}
EXPORTED int cuDeviceGetName(char* name, int bytes, int device) {
  std::strncpy(name, kGpus[device].name, static_cast<size_t>(bytes) - 1);
  return kSuccess;
}
EXPORTED int cuDeviceGetPCIBusId(char* id, int bytes, int device) {
  std::snprintf(id, static_cast<size_t>(bytes), "FFFF:%02X:00.0", device);
  return kSuccess;
}
EXPORTED int cuDeviceGetAttribute(int* value, int attribute, int device) {
  const Gpu& gpu = kGpus[device];
  *value = attribute == kAttributeComputeMajor   ? gpu.major
           : attribute == kAttributeComputeMinor ? gpu.minor
           : attribute == kAttributeNumSms       ? gpu.num_sms
           : attribute == kAttributeL2Bytes      ? gpu.l2_bytes
                                                 : 0;
  return kSuccess;
}
EXPORTED int cuDevicePrimaryCtxRetain(Context* context, int device) {
  *context = handle_of<Context>(device);
  return kSuccess;
}
EXPORTED int cuDevicePrimaryCtxRelease_v2(int) {
  return kSuccess;
}
EXPORTED int cuCtxGetCurrent(Context* context) {
  *context = current() < 0 ? nullptr : handle_of<Context>(current());
  return kSuccess;
}
EXPORTED int cuCtxGetDevice(int* device) {
  *device = current();
  return current() < 0 ? kErrorInvalidContext : kSuccess;
}
EXPORTED int cuCtxPushCurrent_v2(Context context) {
  context_stack.push_back(device_of(context));
  return kSuccess;
}
EXPORTED int cuCtxPopCurrent_v2(Context* context) {
  *context = handle_of<Context>(current());
  context_stack.pop_back();
  return kSuccess;
}
EXPORTED int cuModuleLoadDataEx(Module* module, const void* image, unsigned num_options,
                                int* options, void** values) {
  if (current() < 0) return kErrorInvalidContext;
  const std::scoped_lock lock(jit_mutex);
  jit.device = current();
  jit.text = static_cast<const char*>(image);
  const bool is_known = jit.num_loads++ < jit.num_silent;
  const int log_option = jit.result == kSuccess ? kJitInfoLogBuffer : kJitErrorLogBuffer;
  const std::span which(options, num_options);
  const bool is_verbose = std::find(which.begin(), which.end(), kJitLogVerbose) != which.end();
  for (unsigned i = 0; i < num_options && is_verbose && !is_known; ++i) {
    if (options[i] != log_option) continue;
    // The size follows its buffer.
    std::snprintf(static_cast<char*>(values[i]), reinterpret_cast<size_t>(values[i + 1]), "%s",
                  jit.log.c_str());
  }
  if (jit.result != kSuccess) return jit.result;
  *module = handle_of<Module>(current());
  return kSuccess;
}
EXPORTED int cuModuleUnload(Module module) {
  return check_current(module);
}
EXPORTED int cuModuleGetFunction(Function* function, Module module, const char*) {
  *function = handle_of<Function>(device_of(module));
  return check_current(module);
}
EXPORTED int cuFuncGetAttribute(int* value, int attribute, Function function) {
  *value = attribute == kFunctionNumRegisters  ? 77
           : attribute == kFunctionLocalBytes  ? 24
           : attribute == kFunctionSharedBytes ? 512
                                               : 0;
  return check_current(function);
}
EXPORTED int cuFuncSetAttribute(Function function, int, int) {
  return check_current(function);
}
EXPORTED int cuLaunchKernelEx(const LaunchConfig*, Function function, void**, void**) {
  const int result = check_current(function);
  if (result == kSuccess) ++num_launches.at(static_cast<size_t>(current()));
  return result;
}
EXPORTED int cuMemsetD8Async(uint64_t address, unsigned char, size_t, CudaStream) {
  return owner_of(address) == current() ? kSuccess : kErrorInvalidValue;
}
EXPORTED int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  if (current() < 0) return kErrorInvalidContext;
  const auto device = static_cast<uint64_t>(current());
  constexpr uint64_t kAlignment = 256;
  const uint64_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  *address = ((device + 1) << kAddressShift) + next_address.at(device).fetch_add(rounded);
  return kSuccess;
}
EXPORTED int cuMemFree_v2(uint64_t address) {
  return owner_of(address) == current() ? kSuccess : kErrorInvalidValue;
}
EXPORTED int cuMemcpyHtoDAsync_v2(uint64_t, const void*, size_t, CudaStream) {
  return kSuccess;
}
EXPORTED int cuMemcpyDtoHAsync_v2(void*, uint64_t, size_t, CudaStream) {
  return kSuccess;
}
EXPORTED int cuPointerGetAttribute(void* value, int attribute, uint64_t address) {
  const int owner = owner_of(address);
  if (attribute != kPointerDeviceOrdinal || owner < 0 || owner >= kNumDevices) {
    return kErrorInvalidValue;
  }
  *static_cast<int*>(value) = owner;
  return kSuccess;
}
EXPORTED int cuStreamSynchronize(CudaStream) {
  return kSuccess;
}
EXPORTED int cuEventCreate(Event* event, unsigned) {
  *event = handle_of<Event>(current());
  return kSuccess;
}
EXPORTED int cuEventDestroy_v2(Event) {
  return kSuccess;
}
EXPORTED int cuEventRecord(Event event, CudaStream) {
  const int result = check_current(event);
  if (result == kSuccess) {
    at_event_before = std::exchange(at_last_event, num_launches.at(static_cast<size_t>(current())));
  }
  return result;
}
EXPORTED int cuEventSynchronize(Event) {
  return kSuccess;
}
EXPORTED int cuEventElapsedTime(float* ms, Event, Event) {
  *ms = static_cast<float>(at_last_event - at_event_before);
  return kSuccess;
}
