#include "tests/unit/cli/runner.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/support/catch.h"

namespace sagejit::cli_test {
namespace {

namespace fs = std::filesystem;

// Removed when the process ends.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("sagejit_cli_" + std::to_string(::getpid()))) {
    fs::create_directories(path_);
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

const fs::path& folder() {
  static const Folder instance;
  return instance.path();
}

// `environment`: shell text, assignments.
Outcome run(const std::string& environment, const std::string& arguments) {
  const std::string out = folder() / "stdout", err = folder() / "stderr";
  const std::string command = environment + " SAGEJIT_CACHE_DIR='" + (folder() / "cache").string() +
                              "' '" SAGEJIT_CLI "' " + arguments + " >'" + out + "' 2>'" + err +
                              "'";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(out), read_file(err)};
}

}  // namespace

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

Outcome sagejit(const std::string& arguments) {
  return run("", arguments);
}

Outcome sagejit_with_fake_gpus(const std::string& arguments) {
  return run("LD_LIBRARY_PATH='" SAGEJIT_FAKE_CUDA_DIR "':\"$LD_LIBRARY_PATH\"", arguments);
}

Outcome sagejit_with_loader_trace(const std::string& arguments) {
  return run("LD_DEBUG=files", arguments);
}

std::string file_with(const std::string& name, const std::string& text) {
  const std::string path = folder() / name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

std::string variant_file(const std::string& name) {
  return SAGEJIT_ROOT "/specs/variants/" + name;
}
std::string data_file(const std::string& name) {
  return SAGEJIT_ROOT "/tests/data/" + name;
}

void check_golden(const std::string& name, const std::string& text) {
  const std::string path = SAGEJIT_ROOT "/tests/unit/cli/golden/" + name;
  if (std::getenv("SAGEJIT_BLESS")) std::ofstream(path, std::ios::binary) << text;
  CHECK(text == read_file(path));
}

}  // namespace sagejit::cli_test
