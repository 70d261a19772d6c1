#include "runtime/api/handles.h"

using namespace sagejit;  // NOLINT: the functions below are C
using namespace sagejit::api;

namespace {

uint64_t address_of(const void* memory) {
  return reinterpret_cast<uintptr_t>(memory);
}

}  // namespace

extern "C" {

sagejit_status sagejit_device_open(const char* name, sagejit_device** out, sagejit_error** err) {
  return guarded(err, [&] {
    clear_out(out);
    std::shared_ptr<Device> device = open_device(&required(name, "name"));
    std::string target(device->info().target->name);
    *out = new sagejit_device{std::move(device), std::move(target)};
  });
}

void sagejit_device_destroy(sagejit_device* device) {
  delete device;
}

const char* sagejit_device_name(const sagejit_device* device) {
  return device ? device->impl->info().name.c_str() : nullptr;
}

const char* sagejit_device_product(const sagejit_device* device) {
  return device ? device->impl->info().product.c_str() : nullptr;
}

const char* sagejit_device_target(const sagejit_device* device) {
  return device ? device->target.c_str() : nullptr;
}

sagejit_status sagejit_device_alloc(const sagejit_device* device, size_t bytes, void** out,
                                    sagejit_error** err) {
  return guarded(err, [&] {
    clear_out(out);
    const uint64_t address = required(device, "device").impl->allocate(bytes);
    *out = reinterpret_cast<void*>(static_cast<uintptr_t>(address));
  });
}

sagejit_status sagejit_device_free(const sagejit_device* device, void* memory,
                                   sagejit_error** err) {
  return guarded(err, [&] { required(device, "device").impl->free(address_of(memory)); });
}

sagejit_status sagejit_device_copy_in(const sagejit_device* device, void* to, const void* from_host,
                                      size_t bytes, sagejit_stream stream, sagejit_error** err) {
  return guarded(err, [&] {
    required(device, "device");
    if (bytes) required(static_cast<char*>(to), "to");
    if (bytes) required(static_cast<const char*>(from_host), "from_host");
    device->impl->copy_in(address_of(to), from_host, bytes, stream);
  });
}

sagejit_status sagejit_device_copy_out(const sagejit_device* device, void* to_host,
                                       const void* from, size_t bytes, sagejit_stream stream,
                                       sagejit_error** err) {
  return guarded(err, [&] {
    required(device, "device");
    if (bytes) required(static_cast<char*>(to_host), "to_host");
    if (bytes) required(static_cast<const char*>(from), "from");
    device->impl->copy_out(to_host, address_of(from), bytes, stream);
  });
}

sagejit_status sagejit_device_synchronize(const sagejit_device* device, sagejit_stream stream,
                                          sagejit_error** err) {
  return guarded(err, [&] { required(device, "device").impl->synchronize(stream); });
}

}  // extern "C"
