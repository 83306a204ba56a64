#!/usr/bin/env bash
# Give this machine's cores to a Ray cluster and stay in the foreground until Ctrl-C or SIGTERM.
#
#   examples/cluster/start-node.sh HOST:PORT
#
# HOST:PORT is the head. Change the defaults by the environment:
#
#   CORES                  cores to give (all that this process may use)
#   WAIT_S                 seconds to wait for the head to answer (300)
#   RAY_AUTH_TOKEN_PATH    file with the cluster's token (~/.ray/auth_token), a copy of the head's
set -euo pipefail

head=${1:?usage: start-node.sh HOST:PORT}
command -v workhorse > /dev/null || { echo "workhorse is not on the PATH: activate its environment." >&2; exit 2; }

export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
  echo "No token in $RAY_AUTH_TOKEN_PATH: copy the head's there, readable by you alone." >&2
  exit 2
fi

answers() { (exec 3<> "/dev/tcp/${head%:*}/${head##*:}") 2> /dev/null; }
deadline=$((SECONDS + ${WAIT_S:-300}))
until answers; do
  ((SECONDS < deadline)) || { echo "Nothing answers at $head after ${WAIT_S:-300} s." >&2; exit 2; }
  sleep 2
done

exec workhorse worker --join "$head" ${CORES:+--cores "$CORES"}
