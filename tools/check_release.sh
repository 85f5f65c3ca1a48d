#!/usr/bin/env bash
# Builds wheel and sdist, checks their metadata, installs each into an environment of its own, and prunes the demo there, away
# from the repository.
#
# Usage:
#     tools/check_release.sh [FOLDER]    FOLDER takes the two files; a temporary one by default
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dist=${1:-$work/dist}
mkdir -p "$dist"
dist=$(realpath "$dist")

python3 -m venv "$work/build"
"$work/build/bin/pip" install -q build twine
"$work/build/bin/python" -m build -q --outdir "$dist" "$root"
"$work/build/bin/twine" check --strict "$dist"/*

cd "$work"
for file in "$dist"/*.whl "$dist"/*.tar.gz; do
  python3 -m venv --clear "$work/fresh"
  "$work/fresh/bin/pip" install -q "$file"
  demo=$("$work/fresh/bin/python" -c "from importlib.resources import files; print(files('bocr_onnx.calibration'))")
  case $demo in "$root"*) echo "the package must come from $file, got $demo"; exit 1 ;; esac
  "$work/fresh/bin/bocr-onnx" --version
  "$work/fresh/bin/bocr-onnx" prune "$demo/demo.onnx" --flops 0.5 --data "$demo/digits.npz" --trials 6 -q -o slim.onnx > /dev/null
  "$work/fresh/bin/bocr-onnx" check slim.onnx --against "$demo/demo.onnx" --plan slim.run/plan.json --max-flops 0.5
  rm -rf slim.onnx slim.run
done
