#!/usr/bin/env bash
# Looks at the dependencies as deny.toml says: licences, forbidden crates, sources, known faults.
#
# Builds cargo-deny below target/ where it is missing: 313 seconds of CPU, so about three minutes on two
# cores, once. The list of known faults is kept on GitHub; where that cannot be reached, this part is
# left out and says so, because a change is not at fault for the network.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/tools
PATH=$tools/bin:$PATH
if ! command -v cargo-deny >/dev/null; then
  cargo install cargo-deny --version '^0.20' --locked --root "$tools"
fi

cargo deny check --hide-inclusion-graph licenses bans sources
if timeout 120 cargo deny fetch db; then
  cargo deny check advisories
else
  echo "skipped: the list of known faults (RustSec) cannot be reached from here" >&2
fi
