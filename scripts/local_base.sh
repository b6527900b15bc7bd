#!/bin/sh
# Makes a base image for the Dockerfiles out of Debian packages alone.
#
#     scripts/local_base.sh [IMAGE]          (default: localhost/inferno-base:bookworm)
#     make images ARGS='--base localhost/inferno-base:bookworm'
#
# For a machine that reaches a Debian mirror but no image registry, or that sits behind a proxy which
# re-signs TLS: the image has this machine's apt sources and proxy, and trusts the CAs that this machine trusts.
# What is built on such a base trusts them too, so keep it to the network it was made for.
#
# Needs root, debootstrap, and one of docker, podman and buildah (BUILDER chooses). About two minutes.
set -eu

image=${1:-localhost/inferno-base:bookworm}
suite=${SUITE:-bookworm}
ca=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
builder=${BUILDER:-$(python3 "$(dirname "$0")/build_images.py" --which)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

# Of this machine's apt sources those of the wanted Debian release, one "URI SUITE" a line. Another release's
# machine names none, and then debootstrap's own default is the mirror.
apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v suite="$suite" '$1 == "Debian" && $4 == "main" && index($3, suite) == 1 { print $2, $3 }' |
    sort -u > "$work/sources"
mirror=${MIRROR:-$(awk -v suite="$suite" '$2 == suite { print $1; exit }' "$work/sources")}

# An empty $mirror is no argument at all.
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" ${mirror:+"$mirror"}

if [ -s "$work/sources" ]; then
    sed 's/.*/deb & main/' "$work/sources" > "$root/etc/apt/sources.list"
fi
apt-config dump | grep -i '^Acquire::http.*::Proxy ' > "$root/etc/apt/apt.conf.d/90proxy" || rm "$root/etc/apt/apt.conf.d/90proxy"
cp -L "$ca" "$root/etc/ssl/certs/ca-certificates.crt"

# Like the "slim" images: no manuals, documentation or translations, neither now nor from later packages.
cat > "$root/etc/dpkg/dpkg.cfg.d/slim" <<'SLIM'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
SLIM
# And no caches of apt's: 90 MB in each image that installs something.
cat > "$root/etc/apt/apt.conf.d/slim" <<'SLIM'
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb || true"; };
SLIM
find "$root/usr/share/doc" ! -type d ! -name copyright -delete
find "$root/usr/share/doc" -type d -empty -delete
rm -rf "$root"/usr/share/info/* "$root"/usr/share/locale/* "$root"/usr/share/man/* \
    "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*

# pip and uv carry CA bundles of their own and must be told of this one.
env_ssl=SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
env_pip=PIP_CERT=/etc/ssl/certs/ca-certificates.crt
case $builder in
docker | podman)
    tar -C "$root" --numeric-owner -c . |
        "$builder" import --change "ENV $env_ssl" --change "ENV $env_pip" --change 'CMD ["bash"]' - "$image"
    ;;
buildah)
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root" / > /dev/null
    buildah config --env "$env_ssl" --env "$env_pip" --cmd bash "$container"
    buildah commit --quiet --rm "$container" "$image" > /dev/null
    ;;
*)
    echo "BUILDER is docker, podman or buildah, not $builder" >&2
    exit 2
    ;;
esac
echo "$image"
