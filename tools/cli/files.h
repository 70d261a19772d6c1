// Whole files in and out; "-" is standard input or output.
#pragma once

#include <string>
#include <string_view>

namespace sagejit::cli {

// Throws Error{kIo}.
std::string read_text(const std::string& path);
void write_file(const std::string& path, std::string_view bytes);

// The name messages give it.
std::string display_name(const std::string& path);

}  // namespace sagejit::cli
