#!/bin/sh
# Unpacks the programs that the exporter is measured against into a folder (its usr), where the machine lacks them.
# Nothing is installed; Debian's packages, with all that they need, are fetched with apt-get, which needs no root.
set -eu
mkdir -p "$1"
cd "$1"
PATH="$PATH:/usr/sbin:$PWD/usr/bin:$PWD/usr/sbin"

missing=""
while read -r program package; do
    command -v "$program" >/dev/null || missing="$missing $package"
done <<END
go golang-go
nginx nginx-light
prometheus prometheus
wrk wrk
END
library=usr/share/gocode/src/github.com/prometheus/client_golang
[ -e "/$library" ] || [ -e "$library" ] || missing="$missing golang-github-prometheus-client-golang-dev"
[ -n "$missing" ] || exit 0

for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || { echo "Benchmarks need$missing; install them in your system's way." >&2; exit 1; }
done
wanted() { apt-get -s --no-install-recommends install $missing | sed -n 's/^Inst \([^ ]*\).*/\1/p'; }
fetch() { packages=$(wanted) && apt-get -q -o APT::Sandbox::User=root download $packages; }
fetch || {
    apt-get -q update || echo 'The lists of packages could not be brought up to date: that needs root.' >&2
    fetch
} || { echo "Benchmarks need$missing, which could not be fetched." >&2; exit 1; }
for file in ./*.deb; do
    dpkg -x "$file" .
    rm "$file"
done
