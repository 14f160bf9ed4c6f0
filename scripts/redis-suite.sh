#!/usr/bin/env bash
# Gets Redis' own test suite, which is in the source package that the distribution made its
# redis-server of, and prints where it is. Does nothing when it is there already.
#
# The package is fetched with sources of its own, derived from the machine's; /etc/apt is left as it
# is, and so are apt's lists. What is missing to unpack and to run it (dpkg-dev, tcl) is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

home=$PWD/target/redis-suite
fail() { echo "redis-suite: $*" >&2; exit 1; }

missing=()
command -v tclsh >/dev/null || missing+=(tcl)
[ -e "$home/source/tests/test_helper.tcl" ] || command -v dpkg-source >/dev/null || missing+=(dpkg-dev)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || fail "install these yourself, then run this again: ${missing[*]}"
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "run as root or install sudo"
    as_root=(sudo)
  fi
  echo "redis-suite: installing ${missing[*]}" >&2
  "${as_root[@]}" apt-get update -qq >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

if [ ! -e "$home/source/tests/test_helper.tcl" ]; then
  command -v apt-get >/dev/null || fail "there is no apt-get to fetch the source package with"
  mkdir -p "$home"
  work=$(mktemp -d "$home/fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/{parts,lists/partial,cache/archives/partial,unpacked}

  # Every source of packages becomes one of source packages: the one-line form ...
  shopt -s nullglob
  for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -e "$list" ] || continue
    sed -nE 's/^[[:space:]]*deb(-src)?[[:space:]]/deb-src /p' "$list"
  done | sort -u >"$work/sources.list"
  # ... and paragraphs of fields.
  for list in /etc/apt/sources.list.d/*.sources; do
    sed -E 's/^Types:.*/Types: deb-src/I' "$list" >"$work/parts/$(basename "$list")"
  done

  apt=(apt-get -qq
    -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts="$work/parts"
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache"
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3 -o Acquire::Languages=none)
  # Some other source may have no source packages, or be out of reach: what counts is redis.
  "${apt[@]}" update >&2 || true
  (cd "$work/unpacked" && "${apt[@]}" source redis >&2) ||
    fail "apt has no source package of redis; is its distribution's archive reachable?"
  unpacked=("$work"/unpacked/redis-*/)
  [ -e "${unpacked[0]:-}tests/test_helper.tcl" ] || fail "the source package has no test suite"
  rm -rf "$home/source"
  mv "${unpacked[0]}" "$home/source"
fi
echo "$home/source"
