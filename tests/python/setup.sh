#!/bin/sh
# Makes the virtual environment that the Python tests run in, once, and prints its interpreter.
#
#   tests/python/setup.sh [DIRECTORY]     by default target/python
#
# SHERWOOD_PYTHON names the interpreter to make it of (3.11 or later; by default python3).
# Made again when requirements.txt changes. Two that run at once wait for each other.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:-$here/../../target/python}
python=${SHERWOOD_PYTHON:-python3}
mkdir -p "$(dirname "$venv")"
exec 9> "$venv.lock"
flock 9
if ! cmp -s "$here/requirements.txt" "$venv/made-of.txt"; then
    rm -rf "$venv"
    "$python" -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$venv/made-of.txt"
fi
echo "$venv/bin/python"
