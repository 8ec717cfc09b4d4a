#!/bin/sh
# Unpacks the programs that tests start, and their libraries, into a folder, where the machine lacks them.
# Nothing is installed and no service starts; Debian's packages are fetched with apt-get, which needs no root for that.
set -eu
mkdir -p "$1"
cd "$1"
PATH="$PATH:$PWD/usr/bin"

missing=""
while read -r program package; do
    command -v "$program" >/dev/null || missing="$missing $package"
done <<END
prometheus prometheus
promtool prometheus
prometheus-alertmanager prometheus-alertmanager
amtool prometheus-alertmanager
prometheus-node-exporter prometheus-node-exporter
wrk wrk
systemd-analyze systemd
END
[ -n "$missing" ] || exit 0

for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || { echo "Tests need$missing; install them in your system's way." >&2; exit 1; }
done
fetch() {
    libraries=$(apt-cache depends $missing | sed -n 's/.*Depends: \(lib\(luajit\|systemd-shared\)[^ ]*\)$/\1/p')
    printf '%s\n' $missing $libraries | sort -u | xargs apt-get -q -o APT::Sandbox::User=root download
}
fetch || {
    apt-get -q update || echo 'The lists of packages could not be brought up to date: that needs root.' >&2
    fetch
} || { echo "Tests need$missing, which could not be fetched." >&2; exit 1; }
for file in ./*.deb; do
    dpkg -x "$file" .
    rm "$file"
done
