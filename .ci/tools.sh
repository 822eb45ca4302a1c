# shellcheck shell=bash
# What tests/run, packaging/build, packaging/check and .ci/run need besides cargo: installed on first
# use below target/, found again by a stamp that names the versions. Sourced, never run.

# Tools live in the project's own target/, wherever cargo builds (CARGO_TARGET_DIR): the tests look for
# them there.
PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS="$PROJECT/target/tools"
CARGO_OUT="${CARGO_TARGET_DIR:-$PROJECT/target}"
case "$CARGO_OUT" in /*) ;; *) CARGO_OUT="$PWD/$CARGO_OUT" ;; esac
PATH="$TOOLS/bin:$PATH"
export PATH

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# timed NAME COMMAND...: runs it and says how long it took; ends with its code.
timed() {
    local name=$1 began=$SECONDS result=0
    shift
    "$@" || result=$?
    say "$name took $((SECONDS - began)) s"
    return "$result"
}

# debian_install PACKAGE...: by apt-get, where there is one and we may.
debian_install() {
    command -v apt-get >/dev/null || die "missing: what Debian has in the package $*"
    [ "$(id -u)" = 0 ] || die "missing; as root: apt-get install $*"
    say "installing the Debian package $*"
    # The lists of a new machine are empty or old: fetch them once, and only when something is missing.
    if [ -z "${APT_LISTS_ARE_NEW:-}" ]; then
        apt-get update -qq
        APT_LISTS_ARE_NEW=1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# debian_tool COMMAND PACKAGE: installs PACKAGE unless COMMAND is there.
debian_tool() { command -v "$1" >/dev/null || debian_install "$2"; }

# debian_unpack DIRECTORY PACKAGE: the files of a Debian package below DIRECTORY, nothing installed or started.
debian_unpack() {
    local directory=$1 package=$2 download result=0
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    download=$(mktemp -d)
    say "unpacking the Debian package $package into $directory"
    (cd "$download" && apt-get download -qq "$package" >/dev/null 2>&1) ||
        (apt-get update -qq && cd "$download" && apt-get download -qq "$package") >/dev/null 2>&1 || result=1
    if [ "$result" = 0 ]; then
        rm -rf "$directory"
        mkdir -p "$directory"
        dpkg-deb -x "$download"/*.deb "$directory" || result=1
    fi
    rm -rf "$download"
    return "$result"
}

# debian_unpack_needed DIRECTORY PACKAGE: as debian_unpack, with all that the package needs and this machine does not have.
debian_unpack_needed() {
    local directory=$1 package=$2 download file result=0
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    download=$(mktemp -d)
    mkdir "$download/partial"
    say "unpacking the Debian package $package and what it needs into $directory"
    local get=(apt-get install -qq -y --download-only --no-install-recommends
        -o "Dir::Cache::archives=$download" -o Debug::NoLocking=1 "$package")
    "${get[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${get[@]}"; } >/dev/null 2>&1 || result=1
    if [ "$result" = 0 ]; then
        rm -rf "$directory"
        mkdir -p "$directory"
        for file in "$download"/*.deb; do
            [ ! -e "$file" ] || dpkg-deb -x "$file" "$directory" || result=1
        done
    fi
    rm -rf "$download"
    return "$result"
}

# venv DIRECTORY REQUIREMENT...: a Python environment with exactly these packages.
venv() {
    local directory=$1 stamp
    shift
    stamp="$(python3 --version) $*"
    [ "$(cat "$directory/.installed" 2>/dev/null)" = "$stamp" ] && return
    say "installing $* into ${directory#"$PROJECT"/}"
    # A directory without a matching stamp is half-made or old: begin anew.
    rm -rf "$directory"
    python3 -c 'import ensurepip, venv' 2>/dev/null || debian_install python3-venv
    python3 -m venv "$directory" || return
    "$directory/bin/pip" install --quiet --disable-pip-version-check --no-input "$@" || return
    printf '%s\n' "$stamp" >"$directory/.installed"
}

# wheel_tool COMMAND REQUIREMENT: a cargo subcommand that a wheel carries ready-made.
wheel_tool() {
    command -v "$1" >/dev/null && return
    venv "$TOOLS/python-$1" "$2" || return
    mkdir -p "$TOOLS/bin"
    ln -sf "../python-$1/bin/$1" "$TOOLS/bin/$1"
}

# cargo_tool NAME VERSION: a cargo subcommand built from source.
cargo_tool() {
    [ "$(cat "$TOOLS/.$1" 2>/dev/null)" = "$2" ] && [ -x "$TOOLS/bin/$1" ] && return
    say "building $1 $2 (minutes, once)"
    # A shared CARGO_TARGET_DIR would mix its build with ours, and our flags are not meant for it. It runs for seconds: to build
    # it as fast as it can be would take longer than it ever saves.
    env -u CARGO_TARGET_DIR -u RUSTFLAGS CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install --quiet --locked --force --root "$TOOLS" --version "=$2" "$1"
    printf '%s\n' "$2" >"$TOOLS/.$1"
}

# Two runs at once must not install into the same directory: the second waits for the first.
lock_installs() {
    mkdir -p "$PROJECT/target"
    command -v flock >/dev/null || return 0
    exec 9>"$PROJECT/target/.install.lock"
    flock 9
}
unlock_installs() { exec 9>&-; }
