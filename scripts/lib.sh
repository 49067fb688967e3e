# What the scripts share. To be sourced; goes to the top of the checkout.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Where cargo puts what it builds, and where the scripts put what they make.
built=${CARGO_TARGET_DIR:-target}
made=$PWD/target

# In CI the lock file is right or the run fails.
locked=()
[ -z "${CI:-}" ] || locked=(--locked)

bold='' plain=''
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
    bold=$'\e[1m' plain=$'\e[0m'
fi

say() { printf '%s\n' "$*"; }
heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Installs one of Debian's packages, where that is possible: as root.
install_package() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return
    say "installing $1" >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" >&2 && return
    # The lists of packages may be missing or old.
    apt-get update >&2 &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" >&2
}

# has_or_install COMMAND PACKAGE
has_or_install() {
    command -v "$1" >/dev/null || install_package "$2"
}

# What every build needs.
need_toolchain() {
    command -v cargo >/dev/null ||
        die "cargo is missing: install the Rust toolchain (https://rustup.rs), then run this again"
    has_or_install cc build-essential ||
        die "a C compiler is missing: apt-get install build-essential, then run this again"
}
