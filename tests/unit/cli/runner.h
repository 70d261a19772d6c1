// Runs the real command line as a user's shell would.
#pragma once

#include <string>

namespace sagejit::cli_test {

struct Outcome {
  int exit_code = -1;
  std::string out, err;
};

// `arguments` is shell text. The kernel cache is a folder of this process's own.
Outcome sagejit(const std::string& arguments);

// The same with two GPUs, of the driver that tests/unit/runtime/fake_cuda.cc makes up.
Outcome sagejit_with_fake_gpus(const std::string& arguments);

// The same, as sagejit(), with the dynamic loader's account of every file it opens on standard
// error (ld.so(8), LD_DEBUG=files).
Outcome sagejit_with_loader_trace(const std::string& arguments);

// A file with this text in the test's folder; its path.
std::string file_with(const std::string& name, const std::string& text);

std::string variant_file(const std::string& name);  // of specs/variants
std::string data_file(const std::string& name);     // of tests/data
std::string read_file(const std::string& path);

// Checks a text against a file of golden/. SAGEJIT_BLESS=1 rewrites the file instead.
void check_golden(const std::string& name, const std::string& text);

}  // namespace sagejit::cli_test
