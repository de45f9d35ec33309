#!/bin/sh
# Builds the programs that run an exported network without a framework, as far as this machine can: ./build.sh FOLDER
# Says of each whether it was built, or what it needs. SYCL_DIR and PYTHON: see gpu/README.md.

set -u
here=$(dirname "$0")
out=${1:-build/native}
mkdir -p "$out"
status=0

has() { command -v "$1" >/dev/null 2>&1; }

# name of the program, where it is, a command that builds it
build() {
  name=$1 where=$2
  shift 2
  if "$@" >"$out/$name.log" 2>&1; then
    echo "$name: $where"
  else
    echo "$name: failed, see $out/$name.log"
    status=1
  fi
}

# folder, runtime, further words for cmake
cpp() {
  folder=$out/$1 runtime=$2
  shift 2
  cmake -S "$here/cpp" -B "$folder" "-DRUNTIME=$runtime" "$@" && cmake --build "$folder"
}

if has cmake && has c++; then
  build cpp "$out/cpp/classify" cpp cpp native
  if has nvcc; then
    build cuda "$out/cuda/classify" cpp cuda cuda "-DPYTHON=${PYTHON:-python3}"
  else
    echo "cuda: not built: it needs nvcc"
  fi
  if [ -f "${SYCL_DIR:-}/include/sycl/sycl.hpp" ]; then
    build sycl "$out/sycl/classify" cpp sycl sycl "-DSYCL_DIR=$SYCL_DIR"
  else
    echo "sycl: not built: SYCL_DIR names no environment with intel-sycl-rt"
  fi
else
  echo "cpp, cuda, sycl: not built: they need cmake and a C++ compiler (apt install cmake g++)"
fi
if has mojo; then
  build mojo "$out/mojo_classify" mojo build "$here/mojo/classify.mojo" -o "$out/mojo_classify"
else
  echo "mojo: not built: it needs mojo (pip install max==26.7.0)"
fi
exit $status
