#!/usr/bin/env bash
# make bench: one table, ours and the peers in the same run. benches/README.md says what it means.
source "$(dirname "$0")/lib.sh"

need_toolchain
# The peers have a lock file and a target directory of their own.
heading "Building the peers"
cargo build --locked --release --manifest-path benches/peers/Cargo.toml --target-dir benches/peers/target
heading "Building ours"
cargo build "${locked[@]}" --release -p sherwood-benches
heading "Measuring (some minutes; leave the machine alone)"
exec "$built/release/bench" --peers benches/peers/target/release/peers "$@"
