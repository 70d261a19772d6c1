// Cautions (sema/check.h) as warnings on standard error.
#pragma once

#include <map>
#include <string>

#include "compiler/sema/variant.h"
#include "compiler/target/target.h"

namespace sagejit::cli {

// Each caution once, with the first variant that it is about.
class Cautions {
 public:
  void add(const Variant& variant, const Target& target);
  void print() const;

 private:
  struct About {
    std::string first;
    size_t num_others;
  };
  std::map<std::string, About> about_;  // by text
};

// Those about one variant.
void print_cautions(const Variant& variant, const Target& target);

}  // namespace sagejit::cli
