#!/bin/sh
# Make the virtual environment that the Makefile's commands run in, on a machine that has none of
# what they need but Python.
set -eu

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "gramkeep needs Python 3.11 or newer; set PYTHON= to one" >&2
    exit 1
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "Installing python3-venv, which Debian keeps apart from Python" >&2
    as_root apt-get update -q
    as_root apt-get install -q -y python3-venv
fi

echo "Setting up $VENV with $("$PYTHON" --version)" >&2
"$PYTHON" -m venv "$VENV"
pip="$VENV/bin/python -m pip --disable-pip-version-check --quiet --no-input"
$pip install --requirement requirements/dev.txt
$pip install --no-deps --no-build-isolation --editable .

# Where Node.js is at hand, tests read what grammY writes, and let it read what gramkeep writes.
if command -v npm >/dev/null; then
    npm install --prefix tests/golden --no-package-lock --no-audit --no-fund --silent
fi
