#!/usr/bin/env bash
# make fuzz: every target of fuzz/, each for SECONDS_EACH seconds, from its corpus.
source "$(dirname "$0")/lib.sh"

[ -d fuzz ] || die "there is no fuzz/ in this checkout"
need_toolchain
cargo fuzz --version >/dev/null 2>&1 || die "cargo-fuzz is missing: cargo install cargo-fuzz, then run this again"
# The sanitizer's flags are for nightly compilers; this lets the one there is take them.
export RUSTC_BOOTSTRAP=1

cargo fuzz list | while read -r target; do
    heading "$target"
    cargo fuzz run "$target" -- -max_total_time="${SECONDS_EACH:-60}"
done
