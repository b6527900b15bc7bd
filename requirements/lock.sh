#!/bin/sh
# Pins every dependency by hash. The locks name no index: where packages come from is the installing machine's choice.
# Run it through `make lock`; with --upgrade it takes newer versions.
set -eu
cd "$(dirname "$0")/.."
# With a cache of its own: what a resolution keeps of a source distribution would take the place of what was built from it.
cache="${XDG_CACHE_HOME:-$HOME/.cache}/inferno/lock"
lock() {
    output=$1; shift
    "${UV:-uv}" pip compile -q --cache-dir "$cache" --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-annotate --custom-compile-command "make lock" --no-emit-package inferno-runtime \
        -o "requirements/$output" ${UPGRADE:-} "$@"
}
[ "${1:-}" = --upgrade ] && UPGRADE=--upgrade
lock bootstrap.txt requirements/bootstrap.in
lock build.txt requirements/build.in
lock runtime.txt runtime/pyproject.toml --extra serve --extra tracing
lock operator.txt operator/pyproject.toml
lock dev.txt requirements/dev.in runtime/pyproject.toml operator/pyproject.toml --extra serve --extra tracing
lock ../benchmarks/requirements.txt benchmarks/requirements.in -c requirements/runtime.txt -c requirements/build.txt
lock ../benchmarks/infinity.txt benchmarks/infinity.in
lock ../tests/clients/requirements/agents.txt tests/clients/requirements/agents.in --only-binary :all:
lock ../tests/clients/requirements/llamaindex.txt tests/clients/requirements/llamaindex.in --only-binary :all:
# Without the addresses of the packages, which npm writes by itself.
if command -v npm > /dev/null; then
    npm install --prefix tests/clients/requirements --silent --package-lock-only --omit-lockfile-registry-resolved \
        --ignore-scripts --no-audit --no-fund
fi
