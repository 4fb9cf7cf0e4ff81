#!/usr/bin/env bash
# Creates .venv from requirements.lock. Does nothing while the lock, pyproject.toml and this script are unchanged.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3.11}
stamp=.venv/.installed
wanted=$(cat requirements.lock pyproject.toml tools/setup.sh | sha256sum | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x .venv/bin/violence-ops ] && exit 0

need() { command -v "$1" >/dev/null || { echo "setup: $1 is missing: install it ($2) and run make again." >&2; exit 1; }; }
need "$python" "Debian: python3.11 python3.11-venv"
need cc "Debian: gcc python3.11-dev; xtcocotools is compiled here"
need git "Debian: git"

started=$SECONDS
say() { printf 'setup: %s (%d s)\n' "$1" $((SECONDS - started)); }
say "creating .venv with $($python --version)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
rm -f "$stamp"
pip="$PWD/.venv/bin/python -m pip --quiet --disable-pip-version-check"
$pip install pip uv 2> >(grep -v 'is ignored: it is neither' >&2)
# Plain pip takes the build of torch that fits this machine: CPU from a local folder of wheels, CUDA from the registry.
say "installing torch"
$pip install --constraint requirements.lock torch 2> >(grep -v 'is ignored: it is neither' >&2)
say "installing everything else, as pinned"
UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}" .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -r requirements.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
echo "$wanted" > "$stamp"
say "ready"
