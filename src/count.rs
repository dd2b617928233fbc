//! Numbers of things in messages.

use std::fmt;

/// A number and what it counts, whose plural ends with `s`.
#[derive(Debug, Clone, Copy)]
pub struct Count(pub usize, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, thing) = self;
        write!(f, "{number} {thing}{}", if *number == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        let counts = [0, 1, 2].map(|number| Count(number, "byte").to_string());
        assert_eq!(counts, ["0 bytes", "1 byte", "2 bytes"]);
    }
}
