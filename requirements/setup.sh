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

# The servers that tests start themselves, where they are missing. Debian would start each as a
# service as well, on its well-known port; that is held off while they are installed.
is_missing() {
    [ -z "$(command -v "$1" || ls "/usr/sbin/$1" /usr/lib/postgresql/*/bin/"$1" 2>/dev/null)" ]
}
missing=""
for pair in redis-server:redis-server redis-sentinel:redis-sentinel postgres:postgresql \
    pgbouncer:pgbouncer mariadbd:mariadb-server; do
    if is_missing "${pair%%:*}"; then missing="$missing ${pair##*:}"; fi
done
if [ -n "$missing" ] && command -v apt-get >/dev/null; then
    echo "Installing the servers for tests:$missing" >&2
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        trap 'as_root rm -f "$policy"' EXIT
    fi
    as_root apt-get update -q
    # shellcheck disable=SC2086 # a list of packages
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
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
