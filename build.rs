//! Gives the shared library its SONAME. C programs record it when they are linked and ask the loader for it:
//! Debian's name by default, `LIBMILTER_SOVERSION` for the others (Fedora `1.0`, Alpine `1.0.2`, ...).

fn main() {
    let version = std::env::var("LIBMILTER_SOVERSION").unwrap_or_else(|_| "1.0.1".to_owned());
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmilter.so.{version}");
    println!("cargo::rerun-if-env-changed=LIBMILTER_SOVERSION");
    println!("cargo::rerun-if-changed=build.rs");
}
