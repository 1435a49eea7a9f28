#!/bin/sh
# Builds the image of programs_spec.lua:  programs.sh FIXTURE DIR.  Status 77: what it needs cannot be had here.
#
# In DIR: img/, an OCI layout whose one image, "programs", is the fixture's base and a layer with git, gcc, Node and pip as
# Debian packages them, all that they depend on included, and with numpy as a wheel that pip finds by itself. Left out is what none of the spec's commands can miss: manuals,
# translations, sanitizers, and what Debian's own installer would have use for. It is made once, and made anew when this
# file changes.
set -eu
fixture=$1
keep=$2
here=$(cd "$(dirname "$0")" && pwd)
exec 9>"$keep.lock"
flock 9
mark=$(sha256sum "$here/programs.sh" "$here/fixture.sh")
[ "$(cat "$keep/made-by" 2>/dev/null)" = "$mark" ] && exit 0
dir=$keep.new
rm -rf "$keep" "$dir"
mkdir -p "$dir/debs" "$dir/root"
cd "$dir/debs"
: >../status # nothing is installed: so everything that is needed is named
apt() { apt-get -qq -o Dir::State::status="$dir/status" "$@"; }
apt install -s --no-install-recommends git gcc libc6-dev nodejs python3-pip libblas3 liblapack3 | awk '/^Inst / { print $2 }' |
  grep -vxF -f "$fixture/packages" |
  grep -vxE 'dpkg|tar|debconf|openssl|libcurl.*|lib(krb|k5|gssapi|ldap|sasl|rtmp).*|git-man|.*perl.*|lib(asan|lsan|tsan|ubsan|hwasan|itm)[0-9]*' >../wanted
[ -s ../wanted ] || { echo "no package mirror"; exit 77; }
echo python3-numpy >>../wanted
# shellcheck disable=SC2046  # one word a package
apt download $(cat ../wanted) >/dev/null 2>&1 || { echo "no package mirror"; exit 77; }
mkdir ../numpy
dpkg-deb --fsys-tarfile python3-numpy_*.deb | tar -x -C ../numpy --strip-components=5 ./usr/lib/python3/dist-packages
rm python3-numpy_*.deb
for d in *.deb; do
  dpkg-deb --fsys-tarfile "$d" | tar -x -C ../root --exclude='./usr/share/doc' --exclude='./usr/share/man' \
    --exclude='./usr/share/locale' --exclude='./usr/share/gitweb' --exclude='*/lto1' --exclude='*/lib?san*'
done
cd ..
for so in root/usr/lib/*/blas/libblas.so.3 root/usr/lib/*/lapack/liblapack.so.3; do # as the installer's alternatives do
  ln -s "$(basename "$(dirname "$so")")/$(basename "$so")" "$(dirname "$(dirname "$so")")/$(basename "$so")"
done
mkdir -p root/usr/share/wheels root/etc
printf '[global]\nno-index = true\nfind-links = /usr/share/wheels\nbreak-system-packages = true\n' >root/etc/pip.conf
python3 - <<'X'
import os, pathlib, zipfile
top = pathlib.Path("numpy")
egg = next(top.glob("numpy-*.egg-info"))
version = egg.name.removeprefix("numpy-").removesuffix(".egg-info")
info = f"numpy-{version}.dist-info/"
tag = f"cp311-cp311-linux_{os.uname().machine}"
with zipfile.ZipFile(f"root/usr/share/wheels/numpy-{version}-{tag}.whl", "w") as z:
    for f in sorted((top / "numpy").rglob("*")):
        if f.is_file() and "tests" not in f.parts:
            z.write(f, f.relative_to(top))
    z.write(egg / "PKG-INFO", info + "METADATA")
    z.writestr(info + "WHEEL", f"Wheel-Version: 1.0\nGenerator: spec\nRoot-Is-Purelib: false\nTag: {tag}\n")
    z.writestr(info + "RECORD", "")
X
rm -rf debs status numpy
skopeo --policy "$fixture/policy.json" copy -q "oci:$fixture/img:base" oci:img:programs
umoci insert --image img:programs "$dir/root" /
rm -rf root
echo "$mark" >made-by
mv "$dir" "$keep"
