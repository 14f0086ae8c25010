#!/usr/bin/env bash
# Runs edgedl on an emulated ARM processor, with the runtimes' own wheels for it:
#
#   tests/emulated_arm/edgedl_on_arm.sh CPU ARGUMENT...
#   tests/emulated_arm/edgedl_on_arm.sh cortex-a72 verify out/demo/bundle --parity
#
# CPU is cortex-a72 (Raspberry Pi 4, no int8 dot products) or neoverse-n1 (with them). Results are
# those of the processor, times are not. Needs Debian's qemu-user-static and debootstrap, root, and
# once the package mirrors; what it sets up stays in $EDGEDL_ARM (out/emulated_arm). Exit code 75
# means that it could not be set up.
set -Eeuo pipefail
repository="$(cd "$(dirname "$0")/../.." && pwd)"
root="${EDGEDL_ARM:-$repository/out/emulated_arm}"
python="${PYTHON:-python3}"
cpu="$1"
shift

set_up() {
  # Only unpacked: nothing of it is ever started but Python.
  debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,libstdc++6 bookworm "$root"
  for package in "$root"/var/cache/apt/archives/*.deb; do dpkg -x "$package" "$root"; done
  local platforms=()
  for version in 2_17 2_27 2_28; do platforms+=(--platform "manylinux_${version}_aarch64"); done
  "$python" -m pip install --quiet --disable-pip-version-check --target "$root/site" \
    "${platforms[@]}" --platform manylinux2014_aarch64 --only-binary=:all: --python-version 3.11 \
    -c "$repository/constraints.txt" onnxruntime ai-edge-litert numpy msgspec click pillow
  touch "$root/.ready"
}

# The runtimes ask the system which processor this is, and would hear of the host's.
describe_cpu() {
  local part features="fp asimd evtstrm aes pmull sha1 sha2 crc32"
  case "$cpu" in
    cortex-a72) part=0xd08 ;;
    neoverse-n1)
      part=0xd0c
      features+=" atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
      ;;
    *)
      echo "CPU is cortex-a72 or neoverse-n1, not $cpu" >&2
      exit 2
      ;;
  esac
  mkdir -p "$root/proc/device-tree"
  printf 'Emulated %s\0' "$cpu" >"$root/proc/device-tree/model"
  {
    printf 'processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: %s\n' "$features"
    printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n'
    printf 'CPU part\t: %s\nCPU revision\t: 3\n\n' "$part"
  } >"$root/proc/cpuinfo"
}

# One at a time, to the end of the run: the description of the processor is shared.
mkdir -p "$root"
exec 9>"$root/.lock"
flock 9
if [ ! -e "$root/.ready" ]; then
  trap 'exit 75' ERR
  set_up >&2
  trap - ERR
fi
describe_cpu
exec qemu-aarch64-static -cpu "$cpu" -L "$root" -E HOME="$root/root" \
  -E PYTHONPATH="$repository/typings:$root/site" -E PYTHONDONTWRITEBYTECODE=1 \
  "$root/usr/bin/python3.11" -m edgedl "$@"
