#!/bin/sh
# Builds what the image specs pull:  fixture.sh DIR.  Status 77: what it needs cannot be had here.
#
# In DIR: root/ (a small Debian with python3.11, out of Debian packages), img/ (an OCI layout with the tags below),
# packages (their names), policy.json for skopeo, ca.pem, cert.pem and key.pem for TLS on 127.0.0.1.
#   base   one layer        app    base and a second layer: changes, whiteouts, links, attributes, a configuration
#   many   twelve layers    zstd   app, compressed with zstd       multi  an index: app for this machine, and another
#   pip    base and pip, which installs what lies in the image as a wheel: "numpy", a stand-in of a few lines (the real one
#          is too much to fetch each time; programs.sh does)
# It is made once, and made anew when this file changes.
set -eu
keep=$1
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" -eq 0 ] || { echo "needs root, to make files of several owners"; exit 77; }
need="umoci skopeo python3 openssl dpkg-deb"
for c in $need; do
  command -v "$c" >/dev/null && continue
  sh "$here/../../tools/deps.sh" umoci skopeo python3-minimal openssl docker-registry buildah >/dev/null 2>&1 ||
    { echo "cannot install: $need"; exit 77; }
done
exec 9>"$keep.lock"
flock 9
mark=$(sha256sum "$here/fixture.sh")
[ "$(cat "$keep/made-by" 2>/dev/null)" = "$mark" ] && exit 0
dir=$keep.new
rm -rf "$keep" "$dir"
mkdir -p "$dir/debs" "$dir/root"
cd "$dir/debs"
apt-get download -q libc6 libgcc-s1 gcc-12-base dash coreutils libacl1 libattr1 libgmp10 libselinux1 libpcre2-8-0 \
  python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libexpat1 zlib1g libssl3 libbz2-1.0 libffi8 liblzma5 \
  libsqlite3-0 libdb5.3 libncursesw6 libtinfo6 libreadline8 libuuid1 libcrypt1 libnsl2 libtirpc3 media-types \
  ca-certificates base-files >/dev/null 2>&1 || { echo "no package mirror"; exit 77; }
apt-get download -q python3-pip python3-distutils >/dev/null 2>&1 || { echo "no package mirror"; exit 77; }
for d in *.deb; do
  case $d in python3-*) dpkg-deb --fsys-tarfile "$d" | tar -x --one-top-level=../pip ./usr ;; *) dpkg-deb -x "$d" ../root ;; esac
done
cd ../root
ln -sf dash bin/sh
ln -sf python3.11 usr/bin/python3
ln -sf python3.11 usr/bin/python
mkdir -p etc tmp root proc sys dev srv/home
chmod 1777 tmp
printf 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/srv/home:/bin/sh\n' >etc/passwd
printf 'root:x:0:\napp:x:1000:\nextra:x:2000:app\n' >etc/group
chown 1000:1000 srv/home
cd ..
printf '{"default":[{"type":"insecureAcceptAnything"}]}' >policy.json
umoci init --layout img
umoci new --image img:base
umoci insert --image img:base "$dir/root" /
umoci config --image img:base --config.env PATH=/usr/local/bin:/usr/bin:/bin --config.env PYTHON_VERSION=3.11 \
  --config.cmd python3
umoci unpack --image img:base work >/dev/null 2>&1
(
  cd work/rootfs
  rm -rf usr/share/doc usr/bin/factor etc/mime.types
  echo hello >etc/hello
  mkdir -p srv/app "opt/naïve dir"
  echo 'print("app", __import__("os").getcwd())' >srv/app/main.py
  ln bin/dash usr/bin/dash2
  chmod 4755 usr/bin/dash2
  ln -s ../etc/hello srv/link
  mkfifo srv/pipe
  python3 -c 'import os; os.setxattr("etc/hello", "user.note", b"hi")'
  echo x >"opt/naïve dir/ö x"
  chown 12345:54321 "opt/naïve dir/ö x"
)
umoci repack --image img:app work >/dev/null 2>&1
umoci config --image img:app --config.user app --config.workingdir /srv/app --config.entrypoint python3 \
  --config.cmd main.py --config.exposedports 8000/tcp --config.stopsignal SIGINT --config.env APP=1
rm -rf work
umoci tag --image img:base many >/dev/null
for i in 1 2 3 4 5 6 7 8 9 10 11; do
  echo "$i" >layer
  umoci insert --image img:many layer "/layers/$i"
done
mkdir -p pip/etc pip/usr/share/wheels
printf '[global]\nno-index = true\nfind-links = /usr/share/wheels\nbreak-system-packages = true\n' >pip/etc/pip.conf
python3 - <<'X'
import zipfile
info = "numpy-1.0.dist-info/"
with zipfile.ZipFile("pip/usr/share/wheels/numpy-1.0-py3-none-any.whl", "w") as z:
    z.writestr("numpy/__init__.py", "from . import random\n__version__ = '1.0'\n")
    z.writestr("numpy/random.py", "import random\ndef rand(n): return [random.random() for _ in range(n)]\n")
    z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
    z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: spec\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(info + "RECORD", "")
X
umoci tag --image img:base pip >/dev/null
umoci insert --image img:pip "$dir/pip" /
rm -rf pip
copy() { skopeo --policy policy.json copy -q --dest-tls-verify=false --src-tls-verify=false "$@"; }
copy --dest-decompress oci:img:app dir:plain
copy --dest-compress --dest-compress-format zstd dir:plain dir:packed
copy --preserve-digests dir:packed oci:img:zstd
rm -rf plain packed
python3 - <<'X'
import hashlib, json, copy, os
index = json.load(open("img/index.json"))
app = next(m for m in index["manifests"] if m.get("annotations", {}).get("org.opencontainers.image.ref.name") == "app")
def entry(arch):
    e = {k: app[k] for k in ("mediaType", "digest", "size")}
    e["platform"] = {"os": "linux", "architecture": arch}
    return e
machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
other = entry("s390x"); other["digest"] = "sha256:" + "0" * 64
doc = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [other, entry(machine)]}).encode()
digest = hashlib.sha256(doc).hexdigest()
open("img/blobs/sha256/" + digest, "wb").write(doc)
index["manifests"].append({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": "sha256:" + digest, "size": len(doc),
                           "annotations": {"org.opencontainers.image.ref.name": "multi"}})
json.dump(index, open("img/index.json", "w"))
X
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out ca.pem -days 3650 -subj /CN=127.0.0.1 \
  -addext subjectAltName=IP:127.0.0.1 2>/dev/null
cp ca.pem cert.pem
for d in debs/[!p]*.deb debs/python3.*.deb; do dpkg-deb -f "$d" Package; done >packages
rm -rf debs
echo "$mark" >made-by
mv "$dir" "$keep"
