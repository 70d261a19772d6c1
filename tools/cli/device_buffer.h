// Device memory that is freed with its owner.
#pragma once

#include <cstdint>
#include <utility>

#include "runtime/device/device.h"

namespace sagejit::cli {

class DeviceBuffer {
 public:
  DeviceBuffer(Device& device, uint64_t bytes)
      : device_(&device), bytes_(bytes), address_(bytes ? device.allocate(bytes) : 0) {}
  ~DeviceBuffer() {
    if (address_) device_->free(address_);
  }
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : device_(other.device_), bytes_(other.bytes_), address_(std::exchange(other.address_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&&) = delete;

  uint64_t address() const { return address_; }
  uint64_t bytes() const { return bytes_; }
  void write(const void* from, uint64_t bytes, uint64_t offset = 0) {
    device_->copy_in(address_ + offset, from, bytes, nullptr);
  }
  void read(void* to) const { device_->copy_out(to, address_, bytes_, nullptr); }

 private:
  Device* device_;
  uint64_t bytes_;
  uint64_t address_;
};

}  // namespace sagejit::cli
