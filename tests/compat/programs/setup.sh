#!/bin/sh
# Fetches, once, the libraries that the programs in the documents import.
set -eu
cd "$(dirname "$0")"
command -v npm >/dev/null || ../../../tools/setup node
python3 ../../harness/pinned_venv.py setup .
if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --silent --no-audit --no-fund
    cp package-lock.json node_modules/.installed
fi
