// Policy: which variant each layer of a model takes at each step: specs/policy_format.md.
//
// Immutable once made; safe from several threads. No device, no disk.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/sema/variant.h"

namespace sagejit {

inline constexpr int kPolicyVersion = 1;
inline constexpr int64_t kLastStep = std::numeric_limits<int64_t>::max();

struct PolicyRule {
  std::string layer;       // a word
  int64_t first_step = 0;  // both included
  int64_t last_step = kLastStep;
  size_t variant = 0;   // index into Policy::variants
  std::string comment;  // for people: one line, or empty
};

struct Policy {
  std::vector<Variant> variants;  // with names of their own
  std::vector<PolicyRule> rules;  // of one layer no two have a step in common
  size_t otherwise = 0;           // variant of layers and steps without a rule
  std::string comment;            // for people: lines at the beginning

  const Variant& find(std::string_view layer, int64_t step) const;
};

// Throws Error{kSpec} with file, line and the mend for every error of the text.
Policy parse_policy(std::string_view file_name, std::string_view text);

// parse_policy gives the policy back, comments apart.
std::string print_policy(const Policy& policy);

}  // namespace sagejit
