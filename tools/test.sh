#!/usr/bin/env bash
# Sets up, builds and runs every test, and closes with a line "N passed, N failed, N skipped".
#   bash tools/test.sh                tests, formatting, layers, clang-tidy
#   bash tools/test.sh --sanitizers   the same, then ASan+UBSan over the host code, TSan over the concurrent parts
set -uo pipefail
cd "$(dirname "$0")/.."
bash tools/setup.sh || exit 1

passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# check NAME COMMAND...: one check, its output shown if it fails; exit code 77: it cannot be made here.
check() {
  local name=$1 code=0
  shift
  "$@" >"$log" 2>&1 || code=$?
  case $code in
    0) passed=$((passed + 1)) && echo "ok      $name" ;;
    77) skipped=$((skipped + 1)) && echo "skipped $name: $(tail -n 1 "$log")" ;;
    *)
      failed=$((failed + 1))
      echo "FAILED  $name"
      cat "$log"
      ;;
  esac
}

# suite PRESET TARGET [ctest arguments]: builds a target of a preset and runs the tests.
suite() {
  local preset=$1 target=$2
  shift 2
  echo "build   $preset"
  if ! { cmake --preset "$preset" && cmake --build --preset "$preset" --target "$target"; } >"$log" 2>&1; then
    failed=$((failed + 1))
    echo "FAILED  build of $preset"
    tail -n 60 "$log"
    return
  fi
  (cd "build/$preset" && ctest --output-on-failure -j "$(nproc)" "$@") 2>&1 | tee "$log" |
    grep -E '^ *[0-9]+/[0-9]+ Test|FAILED|error' || true
  local bad good
  bad=$(grep -cE '^ *[0-9]+/[0-9]+ Test .*(\*\*\*Failed|\*\*\*Exception|\*\*\*Timeout|\*\*\*Not Run)' "$log")
  good=$(grep -cE '^ *[0-9]+/[0-9]+ Test .* Passed ' "$log")
  skipped=$((skipped + $(grep -cE '^ *[0-9]+/[0-9]+ Test .*\*\*\*Skipped' "$log")))
  passed=$((passed + good))
  failed=$((failed + bad))
  if ((bad > 0 || good == 0)); then
    cat "$log"
    ((good == 0)) && failed=$((failed + 1))
  fi
}

sources() { git ls-files -- 'compiler/*.h' 'compiler/*.cc' 'runtime/*.h' 'runtime/*.hpp' 'runtime/*.cc' 'tools/*.h' 'tools/*.cc' 'tests/*.h' 'tests/*.cc'; }

check "layers" python3 tools/check_layers.py
check "formatting" bash -c "$(declare -f sources); sources | xargs clang-format --dry-run -Werror"
suite release all
# The first time a few minutes on two cores; then only what changed.
check "clang-tidy" python3 tools/tidy.py
if [ "${1:-}" = --sanitizers ]; then
  suite asan host_tests -L host
  suite tsan test_runtime -L concurrent
fi
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
