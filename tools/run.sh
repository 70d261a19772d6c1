#!/usr/bin/env bash
# Sets up, builds, and runs the main job: SageAttention 1 kernels, generated from their text, on the Q, K
# and V of every layer of a real transformer, checked against float64. Uses a GPU if there is one, else
# the PTX emulator.   usage: bash tools/run.sh [arguments of `sagejit run`]
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/setup.sh
echo "build: build/release"
cmake --preset release >build.log 2>&1 || { cat build.log; exit 1; }
cmake --build --preset release --target sagejit_cli sagejit >build.log 2>&1 || { cat build.log; exit 1; }
rm -f build.log
for variant in sage1_b sage1_t; do
  echo
  build/release/bin/sagejit run "specs/variants/$variant.attn" --input tests/data/minilm_l6_qkv.safetensors "$@"
done
