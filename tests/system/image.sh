#!/bin/sh
# Builds the image localhost/thousandeyes-exporter:test without a container engine, as root:
# tests/system/image.sh FOLDER keeps images and containers in FOLDER.
#
# If the base image cannot be pulled, a stand-in for it is made from packages of Debian.
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
base=$(sed -n 's/^FROM \([^ ]*\)$/\1/p' Dockerfile)
image=localhost/thousandeyes-exporter:test
authorities=/etc/ssl/certs/ca-certificates.crt
echo '*' >"$folder/.gitignore"
# Podman stores the path of the folder, which may have been moved since.
rm -f "$folder"/store/libpod/bolt_state.db
buildah() { command buildah --root "$folder/store" --runroot "$folder/run" "$@"; }

# Packages are unpacked and not configured, which suffices for Python.
debian() {
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
        grep -v security | head -n 1)
    mmdebstrap --quiet --mode=root --variant=extract --aptopt='Acquire::Languages "none"' \
        --aptopt='Acquire::Check-Valid-Until "false"' \
        --include=base-files,ca-certificates,coreutils,dash,findutils,libstdc++6,python3,python3-pip,python3-venv \
        --extract-hook='mkdir -p "$1/usr/local/bin" && ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
        --extract-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
        --extract-hook="copy-in $authorities /etc/ssl/certs" \
        "$1" "$folder/debian.tar" "$mirror"
}

stand_in() {
    # Testing has the Python version of the base image; stable is the fallback.
    debian forky || debian trixie
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$folder/debian.tar" / >/dev/null
    rm "$folder/debian.tar"
    # Connections to package registries may be intercepted by a certificate authority of this host.
    buildah config --env PATH=/usr/local/bin:/usr/bin --env PIP_CERT=$authorities --cmd python3 "$container"
    buildah commit --quiet --rm "$container" "$base" >/dev/null
}

buildah inspect --type image "$base" >/dev/null 2>&1 || buildah pull --quiet "$base" 2>/dev/null || stand_in
buildah rmi $image >/dev/null 2>&1 || true
buildah bud --layers --isolation chroot --pull-never --format docker --quiet --tag $image .
