#!/usr/bin/env bash
# Makes the virtual environment of the tests that other implementations take part in
# (target/python, exactly tests/python/requirements.txt) and prints its interpreter.
source "$(dirname "$0")/lib.sh"

requirements=tests/python/requirements.txt
environment=$made/python
[ -e "$requirements" ] || exit 1

python=${PYTHON:-python3}
command -v "$python" >/dev/null || die "Python is missing, and with it what other readers say of our files"

# Made anew when the pins or the interpreter change; a half-made one has no stamp.
stamp=$(cat "$requirements" && "$python" --version)
if [ "$stamp" != "$(cat "$environment/stamp" 2>/dev/null)" ]; then
    say "making a Python environment in target/python" >&2
    rm -rf "$environment"
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        # Debian keeps it in a package of its own.
        install_package python3-venv && "$python" -c 'import ensurepip' 2>/dev/null ||
            die "Python has no venv module: apt-get install python3-venv, then run this again"
    fi
    "$python" -m venv "$environment" >&2
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        -r "$requirements" >&2
    printf '%s\n' "$stamp" >"$environment/stamp"
fi
say "$environment/bin/python"
