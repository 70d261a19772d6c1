#include "tests/reference/safetensors.h"

#include <fmt/ranges.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "compiler/support/error.h"

namespace sagejit::reference {
namespace {

using nlohmann::json;
static_assert(std::endian::native == std::endian::little, "tensor bytes are stored as they lie");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

struct TypeName {
  std::string_view name;
  DType type;
};
constexpr TypeName kTypeNames[] = {
    {"F16", DType::kF16}, {"BF16", DType::kBF16}, {"F32", DType::kF32}};

std::optional<DType> type_of(std::string_view name) {
  for (const TypeName& row : kTypeNames) {
    if (row.name == name) return row.type;
  }
  return std::nullopt;
}

std::string_view safetensors_name(DType type) {
  for (const TypeName& row : kTypeNames) {
    if (row.type == type) return row.name;
  }
  fail(ErrorKind::kArgument, "safetensors files are written as f16, bf16 or f32, not {}",
       name_of(type));
}

// Throws with the file's name in front.
template <typename... Args>
[[noreturn]] void reject(const std::string& file, fmt::format_string<Args...> format,
                         Args&&... args) {
  fail(ErrorKind::kIo, "{}: {}", file, fmt::format(format, std::forward<Args>(args)...));
}

uint64_t read_header_length(const std::string& file, const std::vector<uint8_t>& bytes) {
  uint64_t length = 0;
  if (bytes.size() < kLengthBytes) {
    reject(file, "not a safetensors file: {} bytes, shorter than the header length", bytes.size());
  }
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMaxHeaderBytes || length > bytes.size() - kLengthBytes) {
    reject(file,
           "not a safetensors file, or cut short: its header claims {} bytes, the file has {}",
           length, bytes.size());
  }
  return length;
}

json parse_header(const std::string& file, const std::vector<uint8_t>& bytes, uint64_t length) {
  const auto begin = bytes.begin() + kLengthBytes;
  try {
    json header = json::parse(begin, begin + static_cast<int64_t>(length));
    if (!header.is_object()) reject(file, "the header is not a JSON object");
    return header;
  } catch (const json::exception& error) {
    reject(file, "the header is not valid JSON: {}", error.what());
  }
}

std::vector<uint64_t> read_unsigned_list(const std::string& file, const std::string& tensor,
                                         const json& entry, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) {
    reject(file, "tensor '{}' has no list '{}'", tensor, key);
  }
  std::vector<uint64_t> values;
  for (const json& value : *found) {
    if (!value.is_number_unsigned() ||
        value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
      reject(file, "tensor '{}': '{}' holds {}, not a size", tensor, key, value.dump());
    }
    values.push_back(value.get<uint64_t>());
  }
  return values;
}

// Elements of a shape; throws if they do not fit 62 bits (so that bytes fit 64).
uint64_t count_elements(const std::string& file, const std::string& tensor,
                        const std::vector<uint64_t>& shape) {
  uint64_t count = 1;
  for (const uint64_t size : shape) {
    if (__builtin_mul_overflow(count, size, &count) || count >> 60) {
      reject(file, "tensor '{}' has a shape beyond 2^60 elements", tensor);
    }
  }
  return count;
}

}  // namespace

SafetensorsFile SafetensorsFile::read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  if (!stream) {
    fail(ErrorKind::kIo, "cannot open {}: {}", path, std::strerror(errno));
  }
  const std::streamoff size = stream.tellg();
  if (size < 0) fail(ErrorKind::kIo, "cannot read {}: it is not a file", path);
  std::vector<uint8_t> bytes(static_cast<size_t>(size));
  stream.seekg(0);
  stream.read(reinterpret_cast<char*>(bytes.data()), size);
  if (!stream) fail(ErrorKind::kIo, "cannot read {}: it is not a file, or changed meanwhile", path);
  return parse(path, std::move(bytes));
}

SafetensorsFile SafetensorsFile::parse(std::string name, std::vector<uint8_t> bytes) {
  SafetensorsFile file;
  file.name_ = std::move(name);
  const uint64_t header_length = read_header_length(file.name_, bytes);
  const json header = parse_header(file.name_, bytes, header_length);
  file.data_begin_ = kLengthBytes + header_length;
  const uint64_t data_bytes = bytes.size() - file.data_begin_;
  for (const auto& [key, value] : header.items()) {
    if (!value.is_object()) reject(file.name_, "header entry '{}' is not an object", key);
    if (key == "__metadata__") {
      for (const auto& [name_in, text] : value.items()) {
        if (!text.is_string()) reject(file.name_, "metadata '{}' is not a string", name_in);
        file.metadata_[name_in] = text.get<std::string>();
      }
      continue;
    }
    const auto dtype = value.find("dtype");
    if (dtype == value.end() || !dtype->is_string()) {
      reject(file.name_, "tensor '{}' has no dtype", key);
    }
    const std::vector<uint64_t> shape = read_unsigned_list(file.name_, key, value, "shape");
    const std::vector<uint64_t> span = read_unsigned_list(file.name_, key, value, "data_offsets");
    const uint64_t count = count_elements(file.name_, key, shape);
    if (span.size() != 2 || span[0] > span[1] || span[1] > data_bytes) {
      reject(file.name_, "tensor '{}' lies at [{}] of {} bytes of data", key, fmt::join(span, ", "),
             data_bytes);
    }
    const std::string type = dtype->get<std::string>();
    const std::optional<DType> known = type_of(type);
    if (known && span[1] - span[0] != count * static_cast<uint64_t>(bits_of(*known) / 8)) {
      reject(file.name_, "tensor '{}' has {} bytes, but {} elements of {}", key, span[1] - span[0],
             count, type);
    }
    file.entries_[key] = {type, {shape.begin(), shape.end()}, span[0], span[1]};
  }
  file.bytes_ = std::move(bytes);
  return file;
}

std::vector<std::string> SafetensorsFile::tensor_names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

HostTensor SafetensorsFile::tensor(std::string_view name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    reject(name_, "no tensor '{}'; there are: {}", name, fmt::join(tensor_names(), ", "));
  }
  const Entry& entry = found->second;
  const std::optional<DType> type = type_of(entry.dtype);
  if (!type) reject(name_, "tensor '{}' is {}; F16, BF16 and F32 can be read", name, entry.dtype);
  if (entry.shape.size() != 4) {
    reject(name_, "tensor '{}' has {} axes; it must be [batch, heads, tokens, head_dim]", name,
           entry.shape.size());
  }
  HostTensor tensor(*type, {entry.shape[0], entry.shape[1], entry.shape[2], entry.shape[3]});
  const uint8_t* data = bytes_.data() + data_begin_;
  tensor.bytes().assign(data + entry.begin, data + entry.end);
  return tensor;
}

void write_safetensors(const std::string& path, const std::map<std::string, HostTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::vector<uint8_t> data;
  for (const auto& [name, tensor] : tensors) {
    const HostTensor dense = tensor.restrided(strides_bhtd(tensor.shape()));
    const size_t begin = data.size();
    data.insert(data.end(), dense.bytes().begin(), dense.bytes().end());
    header[name] = {{"dtype", safetensors_name(tensor.type())},
                    {"shape", tensor.shape()},
                    {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  const uint64_t length = text.size();
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream.write(reinterpret_cast<const char*>(&length), kLengthBytes);
  stream.write(text.data(), static_cast<std::streamsize>(text.size()));
  stream.write(reinterpret_cast<const char*>(data.data()),
               static_cast<std::streamsize>(data.size()));
  stream.close();
  if (!stream) fail(ErrorKind::kIo, "cannot write {}: {}", path, std::strerror(errno));
}

}  // namespace sagejit::reference
