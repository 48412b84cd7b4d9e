#!/usr/bin/env bash
# Writes requirements.lock: every dependency with hashes, for Python 3.11 and later, without index addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
uv pip compile pyproject.toml --group test --group build --universal --python-version 3.11 \
    --generate-hashes --no-emit-index-url --no-header --no-annotate "$@" -o requirements.lock
