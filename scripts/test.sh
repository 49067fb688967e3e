#!/usr/bin/env bash
# make test, make torture: every test, and one line that adds them up.
#
# A test that cannot run here (no root, no tool) passes and writes a line
# `NOT RUN: <name>: <why>` to stderr. It is counted and named as skipped at the end; with
# SHERWOOD_REQUIRE_ALL=1, as in CI, it is a failure.
source "$(dirname "$0")/lib.sh"

what=${1:-all}
need_toolchain
mkdir -p target
results=target/test.log

case $what in
all)
    selected=(--workspace)
    # Without it the test of the fast path says that it was not run.
    has_or_install strace strace || true
    # Without them the tests of a power loss say that they were not run.
    has_or_install mkfs.xfs xfsprogs || true
    has_or_install mkfs.ext4 e2fsprogs || true
    # Debian keeps what makes a virtual environment in a package of its own.
    python3 -c 'import ensurepip' 2>/dev/null || install_package python3-venv || true
    ;;
torture)
    export SHERWOOD_TORTURE=1
    export SHERWOOD_POWER_CUTS=5000 SHERWOOD_KILLS=1000
    has_or_install mkfs.xfs xfsprogs || true
    selected=(-p sherwood-tests)
    for path in tests/tests/*.rs; do
        name=$(basename "$path" .rs)
        case $name in models | *loom* | *torture* | writes_crashes) selected+=(--test "$name") ;; esac
    done
    ;;
*) die "usage: $0 [torture]" ;;
esac

heading "Building the tests"
cargo test "${locked[@]}" "${selected[@]}" --no-run

heading "Running them"
status=0
cargo test "${locked[@]}" "${selected[@]}" --no-fail-fast 2>&1 | tee "$results" || status=$?

# `test result: ok. 5 passed; 0 failed; 1 ignored; ...`, one for each test program.
read -r passed failed ignored < <(awk '
    /^test result: / {
        for (i = 2; i < NF; i++) {
            if ($(i + 1) == "passed;") passed += $i
            if ($(i + 1) == "failed;") failed += $i
            if ($(i + 1) == "ignored;") ignored += $i
        }
    }
    END { print passed + 0, failed + 0, ignored + 0 }' "$results")
mapfile -t not_run < <(sed -n 's/.*NOT RUN: //p' "$results" | sort -u)
missed=${#not_run[@]}
# Such a test was counted as passed.
passed=$((passed > missed ? passed - missed : 0))
skipped=$((ignored + missed))

# A program that was killed has no result line.
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
    failed=1
fi

say
for line in "${not_run[@]}"; do
    say "NOT RUN: $line"
done
if [ "$missed" != 0 ] && [ "${SHERWOOD_REQUIRE_ALL:-}" = 1 ]; then
    say "SHERWOOD_REQUIRE_ALL=1: what was not run counts as failed"
    # A test may have failed for it already, and then was not counted as passed.
    passed=$((passed + (failed < missed ? failed : missed)))
    failed=$((failed > missed ? failed : missed))
    skipped=$ignored
fi
if [ "$failed" != 0 ]; then
    sed -n 's/^test \(.*\) \.\.\. FAILED$/FAILED: \1/p' "$results"
    say "the whole output is in $results"
fi
summary="$passed passed, $failed failed"
[ "$skipped" = 0 ] || summary+=", $skipped skipped"
say "$summary"
[ "$passed" != 0 ] && [ "$failed" = 0 ] && [ "$status" = 0 ]
