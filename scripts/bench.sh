#!/usr/bin/env bash
# make bench: one table, ours and the peers in the same run. benches/README.md says what it means.
source "$(dirname "$0")/lib.sh"

need_toolchain
# Peers without their packages are rows that say so, but building their program needs the first two.
has_or_install protoc protobuf-compiler || die "protoc is missing: install protobuf-compiler, then run this again"
[ -e /usr/include/google/protobuf/timestamp.proto ] || install_package libprotobuf-dev || true
has_or_install etcd etcd-server || true
# The peers have a lock file and a target directory of their own.
heading "Building the peers"
cargo build --locked --release --manifest-path benches/peers/Cargo.toml --target-dir benches/peers/target
heading "Building ours"
cargo build "${locked[@]}" --release -p sherwood-daemon -p sherwood-benches
heading "Measuring (some minutes; leave the machine alone)"
exec "$built/release/bench" --peers benches/peers/target/release/peers "$@"
