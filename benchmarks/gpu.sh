#!/usr/bin/env bash
# Tests, quickstart and training speed on a machine with one CUDA GPU: benchmarks/README.md.
#
#   benchmarks/gpu.sh [OUTPUT_DIR]    # with another interpreter: PYTHON=... benchmarks/gpu.sh
#   benchmarks/gpu.sh --cpu DIR       # the same parts, scaled down, where no GPU is at hand
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" "$root/benchmarks/gpu.py" "$@"
