# UNTRIED: nobody has emerged this yet, `make check` looks at its shape only. That the name libmilter.so.1.0.2 is the one that
# Gentoo's filters ask for has not been seen: compare with `readelf -d /usr/lib64/libmilter.so` there, or set MILTER_SOVERSION.
EAPI=8

RUST_MIN_VER="1.88.0"

inherit cargo

DESCRIPTION="Mail filter library, a replacement for the libmilter of sendmail"
HOMEPAGE="https://example.org/libmilter-rs"
# Made by `make dist`: the sources, with the crates of Cargo.lock below vendor/.
SRC_URI="https://example.org/libmilter-rs/${P}.tar.xz"

LICENSE="|| ( MIT Apache-2.0 )"
# The crates that are linked into the library and into milter-send.
LICENSE+=" Apache-2.0-with-LLVM-exceptions MIT Unicode-3.0 Unlicense"
SLOT="0/1"
KEYWORDS="~amd64 ~arm64"
IUSE="static-libs"

RDEPEND="!mail-filter/libmilter"

MILTER_SOVERSION="${MILTER_SOVERSION:-1.0.2}"

src_unpack() {
	default
}

src_configure() {
	:
}

src_compile() {
	emake library milter-send SOVERSION="${MILTER_SOVERSION}" CARGOFLAGS="--offline --locked"
}

src_test() {
	emake demo SOVERSION="${MILTER_SOVERSION}" CARGOFLAGS="--offline --locked"
}

src_install() {
	emake install DESTDIR="${D}" PREFIX="${EPREFIX}/usr" LIBDIR="${EPREFIX}/usr/$(get_libdir)" \
		SOVERSION="${MILTER_SOVERSION}"
	use static-libs || rm "${ED}/usr/$(get_libdir)/libmilter.a" || die
	einstalldocs
}
