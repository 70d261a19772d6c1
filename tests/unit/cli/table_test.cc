#include "tools/cli/table.h"

#include "compiler/support/error.h"
#include "tests/support/catch.h"

namespace sagejit::cli {
namespace {

TEST_CASE("columns are as wide as their widest cell, numbers to the right") {
  Table table({"kernel", ">registers", "note"});
  table.add({"attend", "168", ""});
  table.add({"k_mean", "24", "no spills"});
  CHECK(table.text("  ") ==
        "  kernel  registers  note\n"
        "  attend        168\n"
        "  k_mean         24  no spills\n");
  CHECK_FALSE(table.empty());
}

TEST_CASE("a row of another length is a defect") {
  Table table({"a", "b"});
  CHECK(table.empty());
  CHECK_THROWS_AS(table.add({"1"}), Error);
}

}  // namespace
}  // namespace sagejit::cli
