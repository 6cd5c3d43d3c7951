#!/usr/bin/env bash
# Builds the wheel, installs it where nothing else is, and tests it there.
#
#     tests/wheel.sh [FOLDER]        keeps the wheel in FOLDER
#
# Needs Python, a Rust toolchain and PyPI. The first build takes as long as `cargo build --release`.
set -euo pipefail
cd "$(dirname "$0")/.."
source=$PWD
unset PYTHONPATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wheels=${1:-$work/wheels}

step() { printf '\n== %s\n' "$*"; }

step "the wheel"
"${PYTHON:-python3}" -m venv "$work/build"
"$work/build/bin/pip" install --quiet maturin==1.16.0
"$work/build/bin/maturin" build --release --locked --out "$wheels" 2> "$work/log" || { cat "$work/log"; exit 1; }
wheel=$(ls -t "$wheels"/acb_fuse-*-py3-none-*.whl | head -1)
ls -sh "$wheel"
"$work/build/bin/python" -m zipfile --list "$wheel"

step "in an empty environment"
"${PYTHON:-python3}" -m venv "$work/empty"
PATH=$work/empty/bin:$PATH
# Neither this source nor another acb-fuse is in reach.
cd "$work"
pip install --quiet --no-index --no-deps "$wheel"
pip check
pip show acb-fuse
acb-fuse --version
python -m acb_fuse --version
python -m acb_fuse "$source/fixtures/networks/cifar_quick/torchscript_kept_static.onnx"
python "$source/tests/python/api.py"

step "with onnx"
pip install --quiet onnx==1.23.2
python "$source/tests/python/api.py"

step "typed"
pip install --quiet mypy==2.4.1
mypy --strict "$source/tests/python/typed.py"
mypy --strict --package acb_fuse

printf '\nall good\n'
