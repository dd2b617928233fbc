//! Gives the shared library its SONAME, which C programs record when they are linked and ask the loader for. `make` says
//! which, for the library alone; whatever else cargo builds needs none.

fn main() {
    if let Ok(version) = std::env::var("LIBMILTER_SOVERSION") {
        println!("cargo::rustc-link-arg=-Wl,-soname,libmilter.so.{version}");
    }
    println!("cargo::rerun-if-env-changed=LIBMILTER_SOVERSION");
    println!("cargo::rerun-if-changed=build.rs");
}
