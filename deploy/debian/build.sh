#!/usr/bin/env bash
# Makes varve_VERSION_ARCH.deb of a built binary:
#
#   cargo build --release && deploy/debian/build.sh target/release/varve "$(cargo xtask licenses)" .
#
# The second is the licences of all that is linked in, which those have to be given who are given the binary. Needs dpkg-dev and gzip, and no root. The same binary gives the same package, byte for byte, if SOURCE_DATE_EPOCH is the same.
# Who gives the package to others stands in it by name: DEBFULLNAME and DEBEMAIL, as for all of Debian's tools.
set -euo pipefail

[ $# -eq 3 ] || { echo "usage: $0 BINARY LICENSES FOLDER" >&2; exit 2; }
binary=$(realpath "$1")
licenses=$(realpath "$2")
into=$(realpath "$3")
here=$(realpath "$(dirname "$0")")
checkout=$(realpath "$here/../..")

version=$("$binary" --version)
version=${version#varve }
arch=$(dpkg --print-architecture)
: "${SOURCE_DATE_EPOCH:=$(stat --format %Y "$checkout/CHANGELOG.md")}"
export SOURCE_DATE_EPOCH
# An address that is nobody's (RFC 2606): whoever builds for himself needs none.
maintainer="${DEBFULLNAME:-The Varve developers} <${DEBEMAIL:-packages@varve.example}>"

work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT
root=$work/varve
umask 022

install -D --mode=0755 "$binary" "$root/usr/bin/varve"
strip --remove-section=.comment --remove-section=.note "$root/usr/bin/varve"
install -D --mode=0644 -t "$root/usr/lib/systemd/system" "$checkout/deploy/systemd/varve.service" \
    "$checkout/deploy/systemd/varve-canary.service"
install -D --mode=0644 "$checkout/deploy/systemd/varve.sysusers" "$root/usr/lib/sysusers.d/varve.conf"
install -D --mode=0644 -t "$root/etc/varve" "$checkout/deploy/systemd/server.properties"

"$binary" man --into "$root/usr/share/man/man1"
gzip --best --no-name "$root"/usr/share/man/man1/*.1
mkdir -p "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" \
    "$root/usr/share/fish/vendor_completions.d"
"$binary" completions bash >"$root/usr/share/bash-completion/completions/varve"
"$binary" completions zsh >"$root/usr/share/zsh/vendor-completions/_varve"
"$binary" completions fish >"$root/usr/share/fish/vendor_completions.d/varve.fish"

doc=$root/usr/share/doc/varve
install -D --mode=0644 "$here/copyright" "$doc/copyright"
install -D --mode=0644 "$licenses" "$doc/THIRD-PARTY-LICENSES"
install -D --mode=0644 "$here/lintian-overrides" "$root/usr/share/lintian/overrides/varve"
install -D --mode=0644 "$checkout/CHANGELOG.md" "$doc/CHANGELOG.md"
# Debian's has a form of its own.
cat >"$doc/changelog" <<CHANGELOG
varve ($version) unstable; urgency=medium

  * What has changed is told in CHANGELOG.md, beside this file.

 -- $maintainer  $(LC_ALL=C date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
CHANGELOG
gzip --best --no-name "$doc/CHANGELOG.md" "$doc/changelog" "$doc/THIRD-PARTY-LICENSES"
install -D --mode=0644 -t "$doc/examples" "$checkout/deploy/systemd/varve-etcd.service"
install -D --mode=0644 -t "$doc/examples/monitoring" "$checkout/deploy/monitoring/rules.yaml"
install -D --mode=0644 -t "$doc/examples/monitoring/dashboards" "$checkout"/deploy/monitoring/dashboards/*.json

# Which libraries, in which versions, the binary asks for; dpkg-shlibdeps wants to stand in a source package.
mkdir "$work/debian"
printf 'Source: varve\n\nPackage: varve\nArchitecture: any\n' >"$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O "$root/usr/bin/varve" 2>/dev/null)
depends=${depends#shlibs:Depends=}
# A static binary asks for none.
depends=${depends:+$depends, }

# As Debian counts it, and not as the file system here does, which has its own idea of a directory's size.
size=$(find "$root" -type f -printf '%s\n' -o -printf '1\n' | awk '{ sum += int(($1 + 1023) / 1024) } END { print sum }')

mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: varve
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $size
Pre-Depends: init-system-helpers (>= 1.54~)
Depends: ${depends}systemd | systemd-standalone-sysusers
Recommends: ca-certificates
Section: net
Priority: optional
Description: log service that speaks Kafka's protocol
 Kafka's clients and tools write to it and read from it unchanged. The hot end
 of each partition lies on the local disk; sealed segments move to an object
 store and become Parquet, which consumers and SQL engines read alike.
CONTROL
echo /etc/varve/server.properties >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install --mode=0755 "$here/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find usr -type f -printf '%P\0' | sed --null-data 's|^|usr/|' | sort --zero-terminated |
    xargs --null md5sum >DEBIAN/md5sums)

find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group --build "$root" "$into/varve_${version}_$arch.deb" >/dev/null
echo "$into/varve_${version}_$arch.deb"
