#include "tests/reference/safetensors.h"

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "compiler/support/error.h"
#include "tests/reference/inputs.h"
#include "tests/support/catch.h"

namespace sagejit::reference {
namespace {

class TemporaryFile {
 public:
  TemporaryFile()
      : path_((std::filesystem::temp_directory_path() /
               ("sagejit_safetensors_" + std::to_string(::getpid())))
                  .string()) {}
  ~TemporaryFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::vector<uint8_t> file_bytes(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::vector<uint8_t> bytes(8 + header.size() + data_bytes, 0);
  std::memcpy(bytes.data(), &length, 8);
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return bytes;
}

std::string message_of(std::vector<uint8_t> bytes) {
  try {
    SafetensorsFile::parse("x.safetensors", std::move(bytes)).tensor("a");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kIo);
    return error.message();
  }
  return "";
}

std::string message_of(const std::string& header, size_t data_bytes) {
  return message_of(file_bytes(header, data_bytes));
}

TEST_CASE("what is written is read back, in every type and from any strides") {
  const TemporaryFile file;
  std::map<std::string, HostTensor> tensors;
  for (const DType type : {DType::kF16, DType::kBF16, DType::kF32}) {
    const Inputs in = make_inputs("normal", {2, 3, 1, 5, 7, 16, 24}, type, 1);
    tensors.emplace(std::string(name_of(type)), in.v.restrided(strides_bthd(in.v.shape())));
  }
  write_safetensors(file.path(), tensors, {{"model", "a \"quoted\" name"}});
  const SafetensorsFile read = SafetensorsFile::read(file.path());
  CHECK(read.tensor_names() == std::vector<std::string>{"bf16", "f16", "f32"});
  CHECK(read.metadata().at("model") == "a \"quoted\" name");
  for (const auto& [name, tensor] : tensors) {
    const HostTensor again = read.tensor(name);
    CHECK(again.type() == tensor.type());
    CHECK(again.shape() == tensor.shape());
    CHECK(again.to_f64() == tensor.to_f64());
  }
}

TEST_CASE("the layout on disk is the format's") {
  const std::string header =
      R"({"a":{"dtype":"F16","shape":[1,1,2,1],"data_offsets":[2,6]},"ids":{"dtype":"I64","shape":[1],"data_offsets":[6,14]}})";
  std::vector<uint8_t> bytes = file_bytes(header, 14);
  bytes[bytes.size() - 14 + 3] = 0x3c;  // little-endian 0x3c00: 1.0
  bytes[bytes.size() - 14 + 5] = 0xc0;  // 0xc000: -2.0
  const SafetensorsFile file = SafetensorsFile::parse("x", bytes);
  CHECK(file.tensor("a").to_f64() == std::vector<double>{1.0, -2.0});
  CHECK_THROWS_WITH(file.tensor("ids"), "x: tensor 'ids' is I64; F16, BF16 and F32 can be read");
  CHECK_THROWS_WITH(file.tensor("b"), "x: no tensor 'b'; there are: a, ids");
}

TEST_CASE("damaged files are refused with the reason") {
  CHECK(message_of({1, 2, 3}) ==
        "x.safetensors: not a safetensors file: 3 bytes, shorter than the header length");
  std::vector<uint8_t> huge(16, 0xff);
  CHECK(message_of(huge) ==
        "x.safetensors: not a safetensors file, or cut short: its header claims "
        "18446744073709551615 bytes, the file has 16");
  CHECK_THAT(message_of("{", 0),
             Catch::StartsWith("x.safetensors: the header is not valid JSON: "));
  CHECK(message_of("[1]", 0) == "x.safetensors: the header is not a JSON object");
  CHECK(message_of(R"({"a":3})", 0) == "x.safetensors: header entry 'a' is not an object");
  CHECK(message_of(R"({"a":{}})", 0) == "x.safetensors: tensor 'a' has no dtype");
  CHECK(message_of(R"({"a":{"dtype":"F16"}})", 0) ==
        "x.safetensors: tensor 'a' has no list 'shape'");
  CHECK(message_of(R"({"a":{"dtype":"F16","shape":[-1],"data_offsets":[0,0]}})", 0) ==
        "x.safetensors: tensor 'a': 'shape' holds -1, not a size");
  CHECK(message_of(R"({"a":{"dtype":"F16","shape":[1,1,1,2],"data_offsets":[0,4]}})", 3) ==
        "x.safetensors: tensor 'a' lies at [0, 4] of 3 bytes of data");
  CHECK(message_of(R"({"a":{"dtype":"F16","shape":[1,1,1,2],"data_offsets":[4,2]}})", 8) ==
        "x.safetensors: tensor 'a' lies at [4, 2] of 8 bytes of data");
  CHECK(message_of(R"({"a":{"dtype":"F16","shape":[1,1,1,3],"data_offsets":[0,4]}})", 4) ==
        "x.safetensors: tensor 'a' has 4 bytes, but 3 elements of F16");
  CHECK(message_of(
            R"({"a":{"dtype":"F16","shape":[4294967296,4294967296,1,1],"data_offsets":[0,0]}})",
            0) == "x.safetensors: tensor 'a' has a shape beyond 2^60 elements");
  CHECK(message_of(R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})", 4) ==
        "x.safetensors: tensor 'a' has 1 axes; it must be [batch, heads, tokens, head_dim]");
  CHECK(message_of(R"({"__metadata__":{"a":1}})", 0) ==
        "x.safetensors: metadata 'a' is not a string");
}

TEST_CASE("every cut of a valid file is refused, or read without its lost tensors") {
  const std::string header = R"({"a":{"dtype":"F32","shape":[1,1,1,2],"data_offsets":[0,8]}})";
  const std::vector<uint8_t> whole = file_bytes(header, 8);
  for (size_t size = 0; size < whole.size(); ++size) {
    CHECK(
        !message_of(std::vector<uint8_t>(whole.begin(), whole.begin() + static_cast<int64_t>(size)))
             .empty());
  }
  CHECK(message_of(whole).empty());
}

TEST_CASE("a missing file says so") {
  CHECK_THROWS_WITH(SafetensorsFile::read("/nonexistent/x.safetensors"),
                    "cannot open /nonexistent/x.safetensors: No such file or directory");
}

}  // namespace
}  // namespace sagejit::reference
