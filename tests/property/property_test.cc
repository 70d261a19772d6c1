// Random problems, judged as those of the tables.
//
//   SAGEJIT_PROPERTY_CASES  how many of each kind (40)
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

void run_random(Lab& lab, Case (*draw)(uint64_t seed)) {
  if (!lab.ready()) return;
  const bool alone = std::getenv("SAGEJIT_PROPERTY_SEED") != nullptr;
  const uint64_t first = number_of("SAGEJIT_PROPERTY_SEED", kFirstSeed);
  const uint64_t count = alone ? 1 : number_of("SAGEJIT_PROPERTY_CASES", kDefaultCases);
  std::vector<KernelRequest> requests;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    const Case row = draw(seed);
    requests.push_back(lab.request(variant_of(row.variant), row.schedule));
  }
  lab.prefetch(requests);
  for (uint64_t seed = first; seed < first + count; ++seed) {
    INFO(fmt::format("re-run with SAGEJIT_PROPERTY_SEED={}", seed));
    run_cases({draw(seed)}, lab);
  }
}

TEST_CASE("random problems", "[property]") {
  run_random(Lab::mma_sync(), random_case);
}

TEST_CASE("random problems with 8-bit P and V", "[property]") {
  run_random(Lab::mma_sync_e4m3(), random_eight_bit_case);
}

TEST_CASE("random problems with fp4 Q and K", "[property][fp4]") {
  run_random(Lab::emulated("sm_120a"), random_fp4_case);
}

TEST_CASE("random problems for wgmma", "[property][wgmma]") {
  run_random(Lab::wgmma(), random_wgmma_case);
}

}  // namespace
}  // namespace sagejit::test
