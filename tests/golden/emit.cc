// Prints what a golden test checks, for the first variant of the file:
//   golden_emit FILE TARGET ir|source [--set KEY=VALUE]... [--schedule LINE]
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "compiler/compile.h"
#include "compiler/sema/resolve.h"
#include "compiler/support/error.h"

namespace sagejit {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(ErrorKind::kIo, "cannot read '{}'", path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string joined(const std::vector<KernelText>& kernels) {
  std::string text;
  for (const KernelText& kernel : kernels) text += kernel.text + "\n";
  return text;
}

std::string emit(const std::vector<std::string>& arguments) {
  if (arguments.size() < 3 || arguments.size() % 2 == 0) {
    fail(ErrorKind::kArgument,
         "usage: golden_emit FILE TARGET ir|source [--set KEY=VALUE]... [--schedule LINE]");
  }
  std::vector<Override> overrides;
  CompileRequest request;
  for (size_t i = 3; i < arguments.size(); i += 2) {
    if (arguments[i] == "--set") {
      overrides.push_back(parse_override(arguments[i + 1]));
    } else if (arguments[i] == "--schedule") {
      request.schedule = parse_schedule(arguments[i + 1]);
    } else {
      fail(ErrorKind::kArgument, "unknown option '{}'", arguments[i]);
    }
  }
  request.variant = resolve_variants(arguments[0], read_file(arguments[0]), overrides).at(0);
  request.target = &find_target(arguments[1]);
  if (arguments[2] == "ir") return joined(emit_ir(request));
  if (arguments[2] == "source") return joined(emit_source(request));
  fail(ErrorKind::kArgument, "'{}' is neither ir nor source", arguments[2]);
}

}  // namespace
}  // namespace sagejit

int main(int argc, char** argv) {
  try {
    std::cout << sagejit::emit({argv + 1, argv + argc});
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "golden_emit: " << error.what() << "\n";
    return 1;
  }
}
