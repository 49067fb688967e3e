#!/usr/bin/env bash
# make run: a sample cluster, a daemon on it, and a look at it through the snapshot.
#
# On a terminal it stays until Ctrl-C; without one it stops the daemon and exits 0. However
# it ends, it leaves no daemon behind and nothing in shared memory.
source "$(dirname "$0")/lib.sh"

state=target/run/state
log=target/run/sherwoodd.log
run_dir=''
daemon=''
watching=''

finish() {
    trap - EXIT
    trap '' INT TERM HUP
    if [ -n "$watching$daemon" ]; then
        kill -TERM $watching $daemon 2>/dev/null || true
        wait $watching $daemon 2>/dev/null || true
    fi
    [ -z "$run_dir" ] || rm -rf "$run_dir" target/run/in_memory
}
trap finish EXIT
# On a terminal, Ctrl-C is the ordinary end.
trap 'say; say "Stopped."; exit 0' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# The daemon ends with us even if we are killed with -9, where setpriv can say so.
tied=()
if setpriv --pdeathsig TERM true 2>/dev/null; then
    tied=(setpriv --pdeathsig TERM)
fi

# A directory of our own, in memory if there is a place for it.
make_run_dir() {
    local place left_over
    # What a run that was killed with -9 could not remove.
    if left_over=$(cat target/run/in_memory 2>/dev/null); then
        [[ $left_over != */sherwood-run.?????? ]] || rm -rf "$left_over"
    fi
    for place in "${XDG_RUNTIME_DIR:-}" /dev/shm; do
        [ -n "$place" ] && [ -d "$place" ] && [ -w "$place" ] || continue
        run_dir=$(mktemp -d "$place/sherwood-run.XXXXXX" 2>/dev/null) && break
    done
    [ -n "$run_dir" ] || run_dir=$(mktemp -d "$PWD/target/run/sherwood-run.XXXXXX")
    printf '%s' "$run_dir" >target/run/in_memory
}

# Says a command, runs it, and indents what it prints.
show() {
    printf '\n  $ sherwood %s\n' "$*"
    "$sherwood" --state-dir "$state" "$@" | sed 's/^/    /'
}

need_toolchain
mkdir -p target/run
exec 9>target/run/lock
flock -n 9 || die "another \`make run\` is running in this checkout: stop it first"

heading "Building (the first time takes a few minutes)"
cargo build "${locked[@]}" -p sherwood-daemon -p sherwood-cli
sherwood=$built/debug/sherwood
sherwoodd=$built/debug/sherwoodd

rm -rf "$state"
heading "A sample cluster, as Parquet in $state"
"$sherwood" sample --nodes 20 --tasks 1000 --content 500 --out "$state"

make_run_dir
snapshot=$run_dir/sample.arrow
heading "sherwoodd publishes it in shared memory, as $snapshot"
"${tied[@]}" "$sherwoodd" --state-dir "$state" --run-dir "$run_dir" >"$log" 2>&1 9>&- &
daemon=$!
for _ in $(seq 600); do
    [ ! -e "$snapshot" ] || break
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.05
done
if [ ! -e "$snapshot" ]; then
    cat "$log" >&2
    die "the daemon did not start; the lines above are its log, $log"
fi

heading "What any process of this host now reads, without a copy and without asking the daemon"
show status
show get nodes node-00000 node-00001 node-00002
show get tasks task-0000000042

heading "A change: another program replaces the Parquet file, and a waiting reader sees it"
"$sherwood" --state-dir "$state" watch --count 1 --timeout 30 >target/run/seen 2>target/run/watching &
watching=$!
# It says so once it has read the first generation and waits for the next.
for _ in $(seq 600); do
    [ ! -s target/run/watching ] || break
    sleep 0.05
done
"$sherwood" sample --nodes 20 --tasks 1000 --content 500 --seed 1 --out "$state"
wait "$watching" || die "the new generation did not arrive; the daemon's log is $log"
watching=''
sed 's/^/    /' target/run/seen
show get tasks task-0000000042

if ! [ -t 0 ] || ! [ -t 1 ]; then
    heading "Done; the daemon is stopped. On a terminal it would stay, with more to try."
    exit 0
fi

heading "What to try next, in another terminal"
cat <<END
  cd $PWD
  export SHERWOOD_STATE_DIR=$PWD/$state PATH=$(cd "$built" && pwd)/debug:\$PATH
  sherwood get tasks -o jsonl | head -3
  sherwood status -o json
  sherwood sample --nodes 20 --tasks 1200 --content 500 --seed 2 --out \$SHERWOOD_STATE_DIR
  sherwood verify $snapshot
  sherwood snapshot /tmp/sherwood-tables      # plain Arrow files, for any tool
  sherwood --help

The daemon's log is $log. Below, one line for each new generation. Ctrl-C ends all.
END
"${tied[@]}" "$sherwood" --state-dir "$state" watch </dev/null 9>&- &
watching=$!
# Reading tells us that the terminal has gone, which no signal need do.
while kill -0 "$daemon" 2>/dev/null; do
    read -r -t 1 _ || [ $? -gt 128 ] || exit 0
done
cat "$log" >&2
die "the daemon has ended by itself; the lines above are its log"
