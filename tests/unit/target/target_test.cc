#include "compiler/target/target.h"

#include "tests/support/catch.h"
#include "tests/unit/support/thrown.h"

namespace sagejit {

TEST_CASE("targets are found by the assembler's name") {
  for (const Target& target : all_targets()) CHECK(&find_target(target.name) == &target);
  const Target& hopper = find_target("sm_90a");
  CHECK(hopper.sm == 90);
  CHECK(hopper.wgmma);
  CHECK_FALSE(find_target("sm_90").wgmma);
  CHECK(find_target("sm_80").smem_per_block == 163 * 1024);
  CHECK(find_target("sm_86").smem_per_block == 99 * 1024);
}

TEST_CASE("an unknown target is refused with the known ones") {
  const Error error = thrown_by([] { find_target("sm_75"); });
  CHECK(error.kind() == ErrorKind::kUnsupported);
  CHECK(error.message() ==
        "target 'sm_75' is not known; known targets: sm_80, sm_86, sm_89, sm_90, sm_90a, "
        "sm_100a, sm_103a, sm_120, sm_120a");
}

TEST_CASE("a device gets the best target that runs on it") {
  struct Row {
    int major, minor;
    std::string_view target;
  };
  const Row rows[] = {{8, 0, "sm_80"},    {8, 6, "sm_86"},    {8, 7, "sm_86"},
                      {8, 9, "sm_89"},    {9, 0, "sm_90a"},   {10, 0, "sm_100a"},
                      {10, 3, "sm_103a"}, {12, 0, "sm_120a"}, {12, 1, "sm_120"}};
  for (const Row& row : rows) {
    INFO(row.major << "." << row.minor);
    CHECK(target_for_device(row.major, row.minor).name == row.target);
  }
}

TEST_CASE("a device without a target is refused") {
  for (const auto& [major, minor] : {std::pair(7, 5), std::pair(10, 1), std::pair(6, 1)}) {
    const Error error = thrown_by([&] { target_for_device(major, minor); });
    CHECK(error.kind() == ErrorKind::kUnsupported);
    CHECK(error.message() ==
          fmt::format("a device of compute capability {}.{} is not supported: kernels need the "
                      "tensor-core instructions of 8.0 (Ampere) and an entry in the target table",
                      major, minor));
  }
}

TEST_CASE("a block's shared memory leaves the reserve of its SM") {
  for (const Target& target : all_targets()) {
    INFO(target.name);
    CHECK(target.smem_per_block + 1024 <= target.smem_per_sm);
    CHECK(target.regs_per_sm == 65536);
  }
}

}  // namespace sagejit
