#!/bin/sh
# Pin what requirements/dev.in asks for, in the newest versions there are. The result names
# packages and versions, and no host to get them from.
set -eu

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
"$PYTHON" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check --quiet --no-input"
$pip install --upgrade pip
$pip install --requirement requirements/dev.in hatchling editables
{
    echo "# Made by \`make lock\` from requirements/dev.in."
    "$venv/bin/python" -m pip freeze --exclude gramkeep --exclude pip
} > requirements/dev.txt
