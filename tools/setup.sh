#!/usr/bin/env bash
# Installs what building and testing need, on Debian 12 or Ubuntu 24.04: packages of the distribution, and
# NVRTC and nvdisasm from PyPI into .deps/ where no CUDA toolkit brings them. Does nothing that is already done.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(g++ cmake ninja-build ccache libfmt-dev libcli11-dev nlohmann-json3-dev libssl-dev catch2
          clang-format clang-tidy llvm-14-tools python3 python3-pip python3-venv)
# For the LLVM back end, which is left out where the distribution has no LLVM 19.
optional=(llvm-19-dev libzstd-dev zlib1g-dev)

is_installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

missing=() missing_optional=()
for package in "${packages[@]}"; do
  # A command that is there some other way (a newer CMake, say) needs no package.
  case $package in
    g++|cmake|ccache|python3|clang-format|clang-tidy) command -v "$package" >/dev/null && continue ;;
    ninja-build) command -v ninja >/dev/null && continue ;;
    python3-pip) python3 -m pip --version >/dev/null 2>&1 && continue ;;
    python3-venv) python3 -c 'import venv, ensurepip' 2>/dev/null && continue ;;
  esac
  is_installed "$package" || missing+=("$package")
done
for package in "${optional[@]}"; do
  is_installed "$package" || missing_optional+=("$package")
done
install_packages() {
  echo "set-up: installing $*"
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
if ((${#missing[@]} + ${#missing_optional[@]})); then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
  ((${#missing_optional[@]} == 0)) || install_packages "${missing_optional[@]}" ||
    echo "set-up: no LLVM 19 here; sagejit is built without the LLVM back end"
fi

have_nvrtc() {
  ls .deps/nvrtc/nvidia/cu*/lib/libnvrtc.so.* >/dev/null 2>&1 && return 0
  [ -z "${SAGEJIT_IGNORE_CUDA_TOOLKIT:-}" ] || return 1
  ls /usr/local/cuda*/lib64/libnvrtc.so.* >/dev/null 2>&1 || ldconfig -p | grep -q 'libnvrtc\.so\.1[23]'
}
# Only tests and `sagejit compile --emit sass` read machine code.
have_nvdisasm() {
  ls .deps/nvdisasm/nvidia/cu*/bin/nvdisasm >/dev/null 2>&1 && return 0
  [ -z "${SAGEJIT_IGNORE_CUDA_TOOLKIT:-}" ] || return 1
  ls /usr/local/cuda*/bin/nvdisasm >/dev/null 2>&1 || command -v nvdisasm >/dev/null
}
# install_deps FOLDER REQUIREMENT: from PyPI into .deps/FOLDER; nothing is run from where others can write.
install_deps() {
  echo "set-up: installing ${2%%[<>=]*} from PyPI into .deps/$1"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
    --no-deps --target ".deps/$1" "$2" && chmod -R go-w ".deps/$1"
}
have_nvrtc || install_deps nvrtc 'nvidia-cuda-nvrtc>=13.0,<13.1'
# PyPI has it from 13.2 on; it reads what older assemblers wrote.
have_nvdisasm || install_deps nvdisasm 'nvidia-cuda-nvdisasm>=13.2,<13.3' ||
  echo "set-up: no nvdisasm here; tests that read machine code are skipped"
