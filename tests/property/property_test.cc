// Random problems, judged as those of the tables.
//
//   SAGEJIT_PROPERTY_CASES  how many (40)
//   SAGEJIT_PROPERTY_SEED   run this one case alone: what a failure prints
//   SAGEJIT_TEST_DEVICE     where (emulator:sm_80)
#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "tests/emulated/lab.h"
#include "tests/emulated/table.h"
#include "tests/property/random_problem.h"
#include "tests/support/catch.h"

namespace sagejit::test {
namespace {

constexpr uint64_t kDefaultCases = 40;
constexpr uint64_t kFirstSeed = 1;

uint64_t number_of(const char* variable, uint64_t fallback) {
  const char* text = std::getenv(variable);
  return text && *text ? std::stoull(text) : fallback;
}

TEST_CASE("random problems", "[property]") {
  if (!Lab::get().ready()) return;
  const bool alone = std::getenv("SAGEJIT_PROPERTY_SEED") != nullptr;
  const uint64_t first = number_of("SAGEJIT_PROPERTY_SEED", kFirstSeed);
  const uint64_t count = alone ? 1 : number_of("SAGEJIT_PROPERTY_CASES", kDefaultCases);
  std::vector<Variant> variants;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    variants.push_back(variant_of(random_case(seed).variant));
  }
  Lab::get().prefetch(variants);
  for (uint64_t seed = first; seed < first + count; ++seed) {
    INFO(fmt::format("re-run with SAGEJIT_PROPERTY_SEED={}", seed));
    run_cases({random_case(seed)});
  }
}

}  // namespace
}  // namespace sagejit::test
