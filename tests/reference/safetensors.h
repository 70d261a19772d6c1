// Reader and writer of safetensors files: an 8-byte little-endian header length, a JSON header, the
// data.
//
// Nothing in a file is trusted: every length, offset and size is checked before use, and what is
// wrong is reported as Error{kIo} naming the file. Element types read as tensors: F16, BF16, F32.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/reference/host_tensor.h"

namespace sagejit::reference {

class SafetensorsFile {
 public:
  // Reads the whole file. Throws Error{kIo}.
  static SafetensorsFile read(const std::string& path);
  // The same from bytes; `name` stands in messages.
  static SafetensorsFile parse(std::string name, std::vector<uint8_t> bytes);

  std::vector<std::string> tensor_names() const;  // sorted
  bool contains(std::string_view name) const { return entries_.find(name) != entries_.end(); }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // A contiguous copy, [b, h, t, d]. Throws Error{kIo} for a missing tensor, another rank or
  // another type.
  HostTensor tensor(std::string_view name) const;

 private:
  struct Entry {
    std::string dtype;
    std::vector<int64_t> shape;
    uint64_t begin, end;  // bytes within data
  };

  std::string name_;
  std::vector<uint8_t> bytes_;
  uint64_t data_begin_ = 0;
  std::map<std::string, Entry, std::less<>> entries_;
  std::map<std::string, std::string> metadata_;
};

// Writes the tensors (any strides) in name order. Throws Error{kIo}.
void write_safetensors(const std::string& path, const std::map<std::string, HostTensor>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace sagejit::reference
