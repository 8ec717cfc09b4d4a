#!/bin/sh
# Builds the image for tests/test_image.py, into a store of its own in a folder; needs root.
#     tests/image.sh tools     installs what that needs, with apt-get
#     tests/image.sh FOLDER    builds
# Where Docker's registry can not be reached, Debian's Python stands in for the image that ours is built on.
set -eu
cd "$(dirname "$0")/.."
base=docker.io/library/python:3.13-slim
image=localhost/thousandeyes-exporter:test

missing=""
for tool in buildah mmdebstrap podman runc; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
if [ "$1" = tools ]; then
    [ -n "$missing" ] || exit 0
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || {
        echo "Tests of the image need$missing and root: install them in your system's way." >&2
        exit 1
    }
    export DEBIAN_FRONTEND=noninteractive
    install="apt-get -q install -y --no-install-recommends$missing"
    $install || { apt-get -q update && $install; }
    exit
fi
[ -z "$missing" ] || { echo "Tests of the image need$missing: \`make tools\` installs that." >&2; exit 1; }

mkdir -p "$1"
folder=$(cd "$1" && pwd)
echo '*' >"$folder/.gitignore"
# Podman's list of containers, of which none is left, knows the folder by its name of that day.
rm -f "$folder"/store/libpod/bolt_state.db
buildah() { command buildah --root "$folder/store" --runroot "$folder/run" "$@"; }

stand_in() {
    # Unpacked and not set up, which is all that Python needs, and takes a quarter of a minute.
    authorities=/etc/ssl/certs/ca-certificates.crt
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | head -n 1)
    mmdebstrap --quiet --mode=root --variant=extract --aptopt='Acquire::Languages "none"' \
        --include=base-files,ca-certificates,coreutils,dash,findutils,libstdc++6,python3,python3-pip,python3-venv \
        --extract-hook='mkdir -p "$1/usr/local/bin" && ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
        --extract-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
        --extract-hook="copy-in $authorities /etc/ssl/certs" \
        trixie "$folder/debian.tar" "$mirror"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$folder/debian.tar" / >/dev/null
    rm "$folder/debian.tar"
    # Package registries may be behind an authority that only this machine knows.
    buildah config --env PATH=/usr/local/bin:/usr/bin --env PIP_CERT=$authorities --cmd python3 "$container"
    buildah commit --quiet --rm "$container" $base >/dev/null
}

buildah inspect --type image $base >/dev/null 2>&1 || buildah pull --quiet $base 2>/dev/null || stand_in
buildah rmi $image >/dev/null 2>&1 || true
buildah bud --isolation chroot --pull-never --format docker --quiet --tag $image .
