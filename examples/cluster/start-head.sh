#!/usr/bin/env bash
# Start the head of a Ray cluster on this machine (Linux) and stay in the foreground until Ctrl-C or SIGTERM.
#
#   examples/cluster/start-head.sh [ADDRESS]
#
# ADDRESS is one of this machine's addresses that the other machines reach; by default the first that is not loopback.
# Change the defaults by the environment:
#
#   PORT                   port of the head (6379)
#   CORES                  cores for workers (all but one, which is left to the process that trains)
#   RAY_AUTH_TOKEN_PATH    file with the cluster's token (~/.ray/auth_token); made if it is not there
#
# Whoever has the token can run code on every node, and it travels unencrypted: see docs/cluster/bare-metal.md.
set -euo pipefail

command -v ray > /dev/null || { echo "ray is not on the PATH: activate its environment." >&2; exit 2; }

address=${1:-$(hostname -I | awk '{ print $1 }')}
port=${PORT:-6379}
all=$(nproc)
cores=${CORES:-$((all > 1 ? all - 1 : 1))}

export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
  (umask 077 && mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")" \
    && python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH")
fi
chmod 600 "$RAY_AUTH_TOKEN_PATH"

echo "Head at $address:$port with $cores core(s) for workers. On every other machine, with the same token file:"
echo "  examples/cluster/start-node.sh $address:$port"
exec ray start --head --block --node-ip-address="$address" --port="$port" --num-cpus="$cores" \
  --include-dashboard=false --disable-usage-stats
