#!/usr/bin/env bash
# Installs what building, testing and the demo need and this machine lacks: a C linker for Rust and
# redis-server. Does nothing on a machine that has them. The distribution's own Redis service is not
# used; whatever runs on port 6379 is left alone.
#
# `setup.sh bench` also installs the proxies that the benchmark compares with, nutcracker and
# haproxy, where that is possible without asking; the benchmark does without them otherwise.
set -euo pipefail

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v redis-cli >/dev/null || missing+=(redis-tools)
command -v cc >/dev/null || missing+=(build-essential)

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "setup: install these yourself, then run this again: ${missing[*]}" >&2
    exit 1
  fi
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "setup: run as root or install sudo" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "setup: installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
fi

if [ "${1:-}" = bench ]; then
  # Debian keeps the proxies where only root's PATH looks.
  PATH=$PATH:/usr/sbin:/usr/local/sbin
  for peer in nutcracker haproxy valgrind; do
    command -v "$peer" >/dev/null && continue
    root=()
    [ "$(id -u)" -eq 0 ] || root=(sudo -n)
    if command -v apt-get >/dev/null && "${root[@]}" apt-get update -qq &&
      "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$peer"; then
      # The package may start a service of its own, which would sit on a port and take time.
      "${root[@]}" systemctl disable --now "$peer" >/dev/null 2>&1 || true
    else
      echo "setup: $peer cannot be installed; the benchmark leaves it out"
    fi
  done
fi

if ! command -v cargo >/dev/null; then
  echo "setup: Rust is missing; see https://rustup.rs, then run this again" >&2
  exit 1
fi

cargo --version
rustc --version
redis-server --version
if [ -n "${KVROCKS_BIN:-}" ]; then
  "$KVROCKS_BIN" --version
elif command -v kvrocks >/dev/null; then
  kvrocks --version
else
  echo "kvrocks: not on this machine; what needs it says so (name one in KVROCKS_BIN)"
fi
