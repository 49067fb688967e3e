#!/usr/bin/env bash
# make lint: what a reviewer should not have to look for.
source "$(dirname "$0")/lib.sh"

need_toolchain
failed=()
check() {
    heading "$1"
    "${@:2}" || failed+=("$1")
}

check "Format" cargo fmt --all --check
check "Clippy" cargo clippy "${locked[@]}" --workspace --all-targets --keep-going -- -D warnings
check "The client without Parquet" cargo check "${locked[@]}" -p sherwood-client --no-default-features --quiet
check "Documentation" env RUSTDOCFLAGS="-D warnings" cargo doc "${locked[@]}" --workspace --no-deps --quiet
check "One version of arrow and tokio; unsafe in its place" python3 scripts/sources.py

say
[ ${#failed[@]} = 0 ] || die "not good: $(IFS=';'; printf '%s' "${failed[*]}")"
say "lint: all good"
