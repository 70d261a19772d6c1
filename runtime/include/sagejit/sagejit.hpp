// C++17 interface over sagejit.h: handles that clean up after themselves, errors as exceptions.
//
// Header-only; no C++ symbol crosses the library's boundary. Objects are movable; copies are not
// needed, as const access is thread-safe.
#pragma once

#include <sagejit/sagejit.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sagejit {
// Part of every symbol's name, so that a program may also contain the library's own objects.
inline namespace client {

class Error : public std::exception {
 public:
  Error(sagejit_status status, std::string message, std::string log)
      : status_(status), message_(std::move(message)), log_(std::move(log)) {}
  sagejit_status status() const noexcept { return status_; }
  const std::string& log() const noexcept { return log_; }  // of the toolchain or the driver
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  sagejit_status status_;
  std::string message_, log_;
};

namespace detail {

struct Destroy {
  void operator()(sagejit_error* handle) const { sagejit_error_destroy(handle); }
  void operator()(sagejit_context* handle) const { sagejit_context_destroy(handle); }
  void operator()(sagejit_device* handle) const { sagejit_device_destroy(handle); }
  void operator()(sagejit_variant* handle) const { sagejit_variant_destroy(handle); }
  void operator()(sagejit_policy* handle) const { sagejit_policy_destroy(handle); }
  void operator()(sagejit_kernel* handle) const { sagejit_kernel_destroy(handle); }
};

template <typename T>
using Handle = std::unique_ptr<T, Destroy>;

// Calls function(args..., &error) and throws what it reports.
template <typename Function, typename... Args>
void call(Function function, Args... args) {
  sagejit_error* raw = nullptr;
  const sagejit_status status = function(args..., &raw);
  const Handle<sagejit_error> error(raw);
  if (status == SAGEJIT_OK) return;
  throw Error(status, error ? sagejit_error_message(raw) : sagejit_status_name(status),
              sagejit_error_log(raw));
}

// The same for functions whose last parameter before the error is a handle to fill in.
template <typename T, typename Function, typename... Args>
Handle<T> make(Function function, Args... args) {
  T* handle = nullptr;
  call(function, args..., &handle);
  return Handle<T>(handle);
}

}  // namespace detail

class Device;

// Device memory that is freed with the object. It keeps its device open.
class Buffer {
 public:
  Buffer() = default;
  void* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  friend class Device;
  struct Free {
    std::shared_ptr<const sagejit_device> device;
    void operator()(void* data) const { sagejit_device_free(device.get(), data, nullptr); }
  };
  std::unique_ptr<void, Free> data_;
  size_t bytes_ = 0;
};

class Device {
 public:
  explicit Device(const std::string& name = "auto")
      : handle_(detail::make<sagejit_device>(sagejit_device_open, name.c_str())) {}

  std::string name() const { return sagejit_device_name(get()); }
  std::string product() const { return sagejit_device_product(get()); }
  std::string target() const { return sagejit_device_target(get()); }

  Buffer allocate(size_t bytes) const {
    void* data = nullptr;
    detail::call(sagejit_device_alloc, get(), bytes, &data);
    Buffer buffer;
    buffer.data_ = std::unique_ptr<void, Buffer::Free>(data, Buffer::Free{handle_});
    buffer.bytes_ = bytes;
    return buffer;
  }
  void copy_in(void* to, const void* from_host, size_t bytes,
               sagejit_stream stream = nullptr) const {
    detail::call(sagejit_device_copy_in, get(), to, from_host, bytes, stream);
  }
  void copy_out(void* to_host, const void* from, size_t bytes,
                sagejit_stream stream = nullptr) const {
    detail::call(sagejit_device_copy_out, get(), to_host, from, bytes, stream);
  }
  void synchronize(sagejit_stream stream = nullptr) const {
    detail::call(sagejit_device_synchronize, get(), stream);
  }
  const sagejit_device* get() const { return handle_.get(); }

 private:
  std::shared_ptr<const sagejit_device> handle_;
};

class Variant {
 public:
  std::string name() const { return sagejit_variant_name(get()); }
  std::string text() const { return sagejit_variant_text(get()); }
  const sagejit_variant* get() const { return handle_.get(); }

 private:
  friend class Context;
  friend class Policy;
  explicit Variant(detail::Handle<sagejit_variant> handle) : handle_(std::move(handle)) {}
  detail::Handle<sagejit_variant> handle_;
};

// Which variant each layer of a model takes at each step.
class Policy {
 public:
  explicit Policy(std::string_view text, const std::string& file_name = "<policy>")
      : handle_(detail::make<sagejit_policy>(sagejit_policy_parse, text.data(), text.size(),
                                             file_name.c_str())) {}

  Variant find(const std::string& layer, int64_t step = 0) const {
    return Variant(detail::make<sagejit_variant>(sagejit_policy_find, get(), layer.c_str(), step));
  }
  const sagejit_policy* get() const { return handle_.get(); }

 private:
  detail::Handle<sagejit_policy> handle_;
};

// A tensor of the caller's: dtype, address, shape and element strides, see sagejit_tensor.
struct Tensor : sagejit_tensor {
  Tensor(sagejit_dtype type, void* address, std::initializer_list<int64_t> sizes,
         std::initializer_list<int64_t> element_strides)
      : sagejit_tensor{} {
    struct_size = sizeof(sagejit_tensor);
    dtype = type;
    data = address;
    ndim = static_cast<int32_t>(sizes.size());
    // More axes than a tensor can have are left for the library to refuse.
    copy(sizes, shape);
    copy(element_strides, strides);
  }
  // Contiguous, last axis fastest.
  Tensor(sagejit_dtype type, void* address, std::initializer_list<int64_t> sizes)
      : Tensor(type, address, sizes, {}) {
    int64_t stride = 1;
    for (int i = (ndim < 4 ? ndim : 4) - 1; i >= 0; --i) {
      strides[i] = stride;
      stride *= shape[i];
    }
  }

 private:
  static void copy(std::initializer_list<int64_t> from, int64_t (&to)[4]) {
    size_t i = 0;
    for (const int64_t value : from) {
      if (i < 4) to[i++] = value;
    }
  }
};

// Arguments of one call; the tensors are borrowed. lse may be null where the variant writes none.
inline sagejit_attention_args attention_args(const sagejit_tensor& q, const sagejit_tensor& k,
                                             const sagejit_tensor& v, const sagejit_tensor& o,
                                             const sagejit_tensor* lse = nullptr) {
  sagejit_attention_args args = {};
  args.struct_size = sizeof(args);
  args.q = &q;
  args.k = &k;
  args.v = &v;
  args.o = &o;
  args.lse = lse;
  return args;
}

class Kernel {
 public:
  size_t workspace_bytes(const sagejit_attention_args& args) const {
    size_t bytes = 0;
    detail::call(sagejit_kernel_workspace, get(), &args, &bytes);
    return bytes;
  }
  void launch(const sagejit_attention_args& args, sagejit_stream stream = nullptr,
              uint32_t phases = SAGEJIT_BOTH) const {
    detail::call(sagejit_kernel_launch, get(), &args, phases, stream);
  }
  std::string describe() const {
    size_t bytes = 0;
    sagejit_kernel_describe(get(), nullptr, &bytes);
    std::string text(bytes, '\0');
    sagejit_kernel_describe(get(), text.data(), &bytes);
    text.resize(bytes ? bytes - 1 : 0);
    return text;
  }
  const sagejit_kernel* get() const { return handle_.get(); }

 private:
  friend class Context;
  explicit Kernel(detail::Handle<sagejit_kernel> handle) : handle_(std::move(handle)) {}
  detail::Handle<sagejit_kernel> handle_;
};

struct ContextOptions {
  uint32_t flags = 0;                                       // SAGEJIT_NO_JIT and the like
  std::string cache_dir;                                    // "": as the environment says
  std::string nvrtc;                                        // "": search for it
  std::function<void(int level, const char* message)> log;  // called from any thread
  std::string backend;    // "ptx", "llvm", "cuda"; "": the fastest
  std::string assembler;  // "ptxas", "nvrtc", "driver"; "": the fastest that is here
  std::string ptxas;      // "": search for it
};

class Context {
 public:
  explicit Context(ContextOptions options = {})
      : log_(std::make_unique<Log>(std::move(options.log))) {
    sagejit_context_options raw = {};
    raw.struct_size = sizeof(raw);
    raw.flags = options.flags;
    const auto given = [](const std::string& text) {
      return text.empty() ? nullptr : text.c_str();
    };
    raw.cache_dir = given(options.cache_dir);
    raw.nvrtc = given(options.nvrtc);
    raw.backend = given(options.backend);
    raw.assembler = given(options.assembler);
    raw.ptxas = given(options.ptxas);
    if (*log_) {
      raw.log = [](void* user, int level, const char* message) {
        (*static_cast<Log*>(user))(level, message);
      };
      raw.log_user = log_.get();
    }
    handle_ = detail::make<sagejit_context>(sagejit_context_create, &raw);
  }

  // The one variant of the text, or the one that the selector picks.
  Variant parse(std::string_view text, const std::string& selector = "",
                const std::vector<std::string>& overrides = {}) const {
    std::vector<const char*> pointers;
    for (const std::string& item : overrides) pointers.push_back(item.c_str());
    sagejit_variant_options options = {};
    options.struct_size = sizeof(options);
    options.selector = selector.empty() ? nullptr : selector.c_str();
    options.num_overrides = static_cast<uint32_t>(pointers.size());
    options.overrides = pointers.data();
    return Variant(detail::make<sagejit_variant>(sagejit_variant_parse, get(), text.data(),
                                                 text.size(), &options));
  }

  // Compiles unless it is in memory or on disk.
  Kernel kernel(const Variant& variant, const Device& device) const {
    return Kernel(
        detail::make<sagejit_kernel>(sagejit_kernel_get, get(), variant.get(), device.get()));
  }

  sagejit_counters counters() const {
    sagejit_counters result = {};
    result.struct_size = sizeof(result);
    sagejit_context_counters(get(), &result);
    return result;
  }
  const sagejit_context* get() const { return handle_.get(); }

 private:
  using Log = std::function<void(int, const char*)>;
  std::unique_ptr<Log> log_;  // outlives the handle that calls it
  detail::Handle<sagejit_context> handle_;
};

}  // namespace client
}  // namespace sagejit
