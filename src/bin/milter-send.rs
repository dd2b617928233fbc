//! The command-line MTA: plays one SMTP transaction to a mail filter.

fn main() {}
