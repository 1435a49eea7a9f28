#!/bin/sh
# Builds the image of programs_spec.lua:  programs.sh FIXTURE DIR.  Status 77: what it needs cannot be had here.
#
# In DIR: img/, an OCI layout whose one image, "programs", is the fixture's base and a layer with git, gcc, Node and pip as
# Debian packages them, all that they depend on included. Left out is what none of the spec's commands can miss: manuals,
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
apt install -s --no-install-recommends git gcc libc6-dev nodejs python3-pip | awk '/^Inst / { print $2 }' |
  grep -vxF -f "$fixture/packages" |
  grep -vxE 'dpkg|tar|debconf|openssl|libcurl.*|lib(krb|k5|gssapi|ldap|sasl|rtmp).*|git-man|.*perl.*|lib(asan|lsan|tsan|ubsan|hwasan|itm|quadmath)[0-9]*' >../wanted
[ -s ../wanted ] || { echo "no package mirror"; exit 77; }
# shellcheck disable=SC2046  # one word a package
apt download $(cat ../wanted) >/dev/null 2>&1 || { echo "no package mirror"; exit 77; }
for d in *.deb; do
  dpkg-deb --fsys-tarfile "$d" | tar -x -C ../root --exclude='./usr/share/doc' --exclude='./usr/share/man' \
    --exclude='./usr/share/locale' --exclude='./usr/share/gitweb' --exclude='*/lto1' --exclude='*/lib?san*'
done
cd ..
rm -rf debs status
skopeo --policy "$fixture/policy.json" copy -q "oci:$fixture/img:base" oci:img:programs
umoci insert --image img:programs "$dir/root" /
rm -rf root
echo "$mark" >made-by
mv "$dir" "$keep"
