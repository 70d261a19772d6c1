// Options whose value is one of a few names.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <string>

namespace sagejit::cli {

// For option->transform(): a name becomes the number that CLI11 makes a Choice of; anything else is
// an error that lists the names.
template <typename Choice>
CLI::Validator one_of(const std::map<std::string, Choice>& names) {
  const auto transform = [names](std::string& text) {
    const auto found = names.find(text);
    if (found != names.end()) {
      text = std::to_string(static_cast<int>(found->second));
      return std::string();
    }
    std::string known;
    for (const auto& [name, choice] : names) known += (known.empty() ? "" : ", ") + name;
    return fmt::format("`{}` is none of {}", text, known);
  };
  return {transform, ""};
}

}  // namespace sagejit::cli
