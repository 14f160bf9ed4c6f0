#!/usr/bin/env bash
# Installs the client libraries that tests/real_clients.rs runs: runtimes and what the distribution
# has of libraries from its packages, the rest in pinned versions into target/clients. Does nothing
# that has been done before.
set -euo pipefail
cd "$(dirname "$0")/.."

programs=$PWD/tests/clients
place=${CARGO_TARGET_DIR:-target}/clients
mkdir -p "$place"
place=$(cd "$place" && pwd)

missing=()
needs() { # <package> <command that succeeds when it is there>
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
needs python3-venv python3 -c 'import venv, ensurepip'
# Whoever has a Node.js from elsewhere has npm with it.
needs nodejs node --version
needs npm npm --version
needs gcc cc --version
needs libhiredis-dev test -e /usr/include/hiredis/hiredis.h
needs php-cli php --version
needs php-redis php -r 'exit(extension_loaded("redis") ? 0 : 1);'
needs ruby-redis ruby -r redis -e 'exit'
needs golang-go go version
redigo=/usr/share/gocode/src/github.com/gomodule/redigo
needs golang-github-gomodule-redigo-dev test -d "$redigo"

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "setup-clients: install these yourself, then run this again: ${missing[*]}" >&2
    exit 1
  fi
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "setup-clients: run as root or install sudo" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "setup-clients: installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# Whether what was installed came from the same list. Noted after, so that a broken installation is
# made again.
done_for() { cmp -s "$1" "$2/.installed-from"; }
note() { cp "$1" "$2/.installed-from"; }

list=$programs/python/requirements.txt
if ! done_for "$list" "$place/python"; then
  rm -rf "$place/python"
  python3 -m venv "$place/python"
  "$place/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$list"
  note "$list" "$place/python"
fi

list=$programs/node/package-lock.json
if ! done_for "$list" "$place/node"; then
  mkdir -p "$place/node"
  cp "$programs/node/package.json" "$list" "$place/node"
  # What the list names and nothing that has to be compiled. `npm ci` would insist on a list of the
  # optional packages of every platform.
  (cd "$place/node" &&
    npm install --no-save --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error)
  note "$list" "$place/node"
fi

# A package of its own, in a place of its own: nothing of it is part of Pointsman.
cargo build --quiet --locked --manifest-path "$programs/rust/Cargo.toml" --target-dir "$place/rust"

mkdir -p "$place/c" "$place/go"
cc -std=c11 -D_DEFAULT_SOURCE -O1 -Wall -Wextra -Werror \
  -o "$place/c/hiredis" "$programs/c/hiredis.c" -lhiredis
# From the distribution's sources, without modules and their proxy.
GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS= \
  go build -o "$place/go/redigo" "$programs/go/redigo.go"
# What else there is of them, the distribution keeps.
touch "$place/php-redis" "$place/ruby-redis"

"$place/python/bin/python" --version
echo "node $(node --version)"
