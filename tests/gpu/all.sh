#!/usr/bin/env bash
# All that only an NVIDIA GPU can show, in at most 8 minutes: tests/gpu/all.sh [FOLDER for results].
# It wants edgedl with its extras compress, dev and tensorrt, and TensorRT or TensorRT-RTX.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-out/gpu}
python=${PYTHON:-.venv/bin/python}
edgedl() { timeout 100 "$python" -c 'from edgedl.tools.cli import main; main()' "$@"; }

mkdir -p "$out"
"$python" -c 'from edgedl.runtime.tensorrt.driver import find_gpu; print(find_gpu())'
edgedl doctor | tee "$out/doctor.txt"
timeout 150 "$python" -m pytest -q -m gpu tests/gpu | tee "$out/tests.txt"
[ -e "$out/resnet8" ] || edgedl compress resnet8-fashion_mnist --recipe static_w8c_a8 \
  --target ort,tensorrt --out "$out/resnet8" >"$out/compress.txt"
for library in tensorrt tensorrt_rtx; do
  if "$python" -c "import $library" 2>/dev/null; then
    edgedl compile "$out/resnet8" --target "$library" | tee "$out/compile-$library.txt"
  fi
done
edgedl verify "$out/resnet8" | tee "$out/verify.txt"
