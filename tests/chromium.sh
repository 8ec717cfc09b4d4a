#!/bin/sh
# Fetches Chromium, and axe-core into a folder, for tests/test_page_chromium.py.
# Chromium has a hundred libraries, so it is installed, which needs root. axe-core travels in a package on PyPI, of which
# only this one file is wanted: whatever Python that package asks for, none of its own code is run.
set -eu
package=pytest-playwright-axe==4.14.0
hash=sha256:b8eed34ac17e1c1094983eaef97687e65b3e0c5a0de0257b8b34cc05430a07ca
python=$(realpath -s "$2")

command -v chromium >/dev/null || {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || {
        echo "Tests of the status page need chromium and root: install it in your system's way." >&2
        exit 1
    }
    export DEBIAN_FRONTEND=noninteractive
    install="apt-get -q install -y --no-install-recommends chromium fonts-dejavu-core"
    $install || { apt-get -q update && $install; }
}

mkdir -p "$1"
cd "$1"
[ -e axe.min.js ] && exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "$package --hash=$hash" >"$work/requirements.txt"
"$python" -m pip --disable-pip-version-check --quiet download --no-deps --require-hashes --only-binary=:all: \
    --python-version 3.13 --dest "$work" -r "$work/requirements.txt"
"$python" -m zipfile -e "$work"/*.whl "$work"
mv "$work/pytest_playwright_axe/resources/axe.min.js" .
