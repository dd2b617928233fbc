# shellcheck shell=sh
# What tests/platforms/run and tests/sanitize/run share: Debian's Rust compiler, rustc-web, and the source of its standard library,
# which they build as well. Both come from Debian's archive through package lists of our own and are unpacked below target/: nothing
# is installed, and no root is needed.
#
# Sourced in the root of the repository. Sets `target`, where cargo builds, `cargo`, and `rust`, where all of this stands. After
# `prepare_rust`, `debian_cargo` is cargo with that compiler; `apt_below` and `unpack` are for other packages of Debian's.

target=${CARGO_TARGET_DIR:-$PWD/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
cargo=${CARGO:-cargo}
rust=$target/platforms/rust

# What is common to all calls of apt-get: package lists and downloads below a directory, in `options`. The system's locks, which
# need root, are for those who install.
apt_below() {
    rm -rf "$1"
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial" "$1/sources" "$1/root"
    options="-q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$1/sources -o Dir::State::lists=$1/lists
        -o Dir::Cache=$1/cache -o APT::Sandbox::User=root -o Debug::NoLocking=true"
}

# Unpacks what apt-get has downloaded.
unpack() {
    for package in "$1"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$1/root"
    done
    rm -r "$1/cache" "$1/lists"
    touch "$1/fetched"
}

# The compiler, and the source of the standard library, with what they depend on that this machine does not have.
# shellcheck disable=SC2086,SC2016
fetch_rust() {
    apt_below "$rust"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        ! grep -q '/debian' "$file" 2>/dev/null || cp "$file" "$rust/sources/"
    done
    options="$options -o APT::Architectures::=amd64"
    apt-get $options update
    apt-get $options --download-only --reinstall -y --no-install-recommends install rustc-web rust-web-src
    apt-get $options indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        sed -n 's/^Debian //p' >"$rust/mirrors"
    unpack "$rust"
}

# Provides the compiler as $rust/rustc, and in $rust/vendor the sources of all crates, those of the standard library too.
prepare_rust() {
    [ -e "$rust/fetched" ] || fetch_rust
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "'$rust/root/usr/lib/x86_64-linux-gnu'" \
        "'$rust/root/usr/bin/rustc'" >"$rust/rustc"
    chmod 755 "$rust/rustc"
    "$rust/rustc" --version
    cmp -s Cargo.lock "$rust/vendored.lock" || {
        $cargo vendor --locked "$rust/vendor" >/dev/null
        cp -r "$rust"/root/usr/src/rustc-*/library/vendor/* "$rust/vendor/"
        cp Cargo.lock "$rust/vendored.lock"
    }
}

# Calls cargo with that compiler and those sources; the library has the SONAME that Debian's programs ask for.
# shellcheck disable=SC2086
debian_cargo() {
    env RUSTC_BOOTSTRAP=1 RUSTC="$rust/rustc" LIBMILTER_SOVERSION=1.0.1 $cargo \
        --config 'source.crates-io.replace-with="vendored"' --config "source.vendored.directory=\"$rust/vendor\"" "$@"
}
