#!/usr/bin/env bash
# Tests examples/convert_on_ray.py on a Ray cluster on this machine.
#
#     tests/ray_example.sh [WHEEL]        else it builds one, which takes as long as `cargo build --release`
#
# Needs Python 3.10 or newer, PyPI and, without a wheel, a Rust toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONPATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/environment"
PATH=$work/environment/bin:$PATH
pip install --quiet "${1:-.}" -r examples/requirements.txt mypy==2.4.1

mypy --strict examples/convert_on_ray.py
python tests/python/ray_example.py
