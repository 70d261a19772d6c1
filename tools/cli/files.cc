#include "tools/cli/files.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "compiler/support/error.h"

namespace sagejit::cli {

std::string display_name(const std::string& path) {
  return path == "-" ? "<stdin>" : path;
}

std::string read_text(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    fail(ErrorKind::kIo, "cannot read {}: it is a directory", path);
  }
  std::ifstream stream(path, std::ios::binary);
  if (!stream) fail(ErrorKind::kIo, "cannot open {}: {}", path, std::strerror(errno));
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (stream.bad()) fail(ErrorKind::kIo, "cannot read {}: {}", path, std::strerror(errno));
  return text;
}

void write_file(const std::string& path, std::string_view bytes) {
  if (path == "-") {
    if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) != bytes.size()) {
      fail(ErrorKind::kIo, "cannot write to standard output");
    }
    return;
  }
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  stream.close();
  if (!stream) fail(ErrorKind::kIo, "cannot write {}: {}", path, std::strerror(errno));
}

}  // namespace sagejit::cli
