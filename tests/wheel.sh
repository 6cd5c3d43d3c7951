#!/usr/bin/env bash
# Builds the wheel, installs it where nothing else is, and tests it there.
#
#     tests/wheel.sh [FOLDER]        keeps the wheel in FOLDER
#     WHEEL=FILE tests/wheel.sh      tests this one, which is there already
#     WITHOUT_PACKAGES=1 …           tests it alone, as on versions of Python that other packages have left behind
#     WITH_OLIVE=1 …                 tests it also with PyTorch and Olive, which take several GB
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
wheel=${WHEEL:+$(realpath "$WHEEL")}
if [[ -z $wheel ]]; then
    "${PYTHON:-python3}" -m venv "$work/build"
    "$work/build/bin/pip" install --quiet maturin==1.16.0
    "$work/build/bin/maturin" build --release --locked --out "$wheels" 2> "$work/log" || { cat "$work/log"; exit 1; }
    wheel=$(ls -t "$wheels"/acb_fuse-*-py3-none-*.whl | head -1)
fi
ls -sh "$wheel"
"${PYTHON:-python3}" -m zipfile --list "$wheel"

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
python -m unittest discover --start-directory "$source/tests/python"

if [[ -n ${WITHOUT_PACKAGES:-} ]]; then
    printf '\nall good, without other packages\n'
    exit
fi

step "with the packages whose models it takes"
pip install --quiet --requirement "$source/tests/python/requirements.txt"
python -m unittest discover --start-directory "$source/tests/python"

step "typed"
mypy --strict "$source/tests/python/typed.py"
mypy --config-file "$source/pyproject.toml" --package acb_fuse
(cd "$source" && ruff check --no-cache)

if [[ -n ${WITH_OLIVE:-} ]]; then
    step "with PyTorch and Olive, of several GB"
    pip install --quiet --requirement "$source/tests/python/olive.txt"
    python -m unittest discover --start-directory "$source/tests/python"
fi

printf '\nall good\n'
