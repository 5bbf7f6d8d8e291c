//! The notations of the configuration file: durations, sizes, port ranges, address blocks, log levels.
//!
//! Each type parses one notation and writes it back in its shortest form, so that a value which was read is a value
//! that makes sense, and a default can be printed as an administrator would type it. Whether two values fit each
//! other is not their business: see [`Config`](super::Config).

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::alg;

/// A duration as `"90s"`, `"15m"`, `"1h"` or `"2d"`; whole units only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

/// A number of bytes as `"512KiB"`, `"8MiB"` or `"4096"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

/// One port, or a range as `"16384-32767"`. In a list, a single port may be written as a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(pub RangeInclusive<u16>);

/// An address, or a block as `"192.168.0.0/16"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(pub alg::Prefix);

/// What to log: a level, and levels for single modules, as `"info"` or `"info,sipalg::alg=debug"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level(pub String);

/// Where a file of the daemon's own is: `"auto"` (where systemd or the system wants such files), `"none"`, or an absolute
/// path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where such files belong.
    Auto,
    /// Nowhere: there shall be none.
    None,
    /// Here.
    At(PathBuf),
}

/// Whom the gateway runs as: `"auto"`, `"none"`, or the name of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// `sipalg`, if there is such a user and we are root.
    Auto,
    /// Who started it.
    None,
    /// This one.
    Named(String),
}

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("\"{text}\" is not a duration; write it as \"90s\", \"15m\", \"1h\" or \"2d\"");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
        let unit = text.get(digits.len()..).unwrap_or_default().trim_start();
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        let seconds = count.checked_mul(*seconds).filter(|s| *s <= 365 * 86_400);
        seconds.map(|s| Self(Duration::from_secs(s))).ok_or_else(|| format!("\"{text}\" is more than a year"))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (name, unit) = UNITS
            .iter()
            .find(|(_, unit)| seconds >= *unit && seconds.is_multiple_of(*unit))
            .unwrap_or(&("s", 1));
        write!(f, "{}{name}", seconds / unit)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a size; write it as \"512KiB\" or \"8MiB\"");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
        let shift = match text.get(digits.len()..).unwrap_or_default().trim_start() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(wrong()),
        };
        let count: usize = digits.parse().map_err(|_| wrong())?;
        count.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => write!(f, "{}MiB", bytes >> 20),
            bytes if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => write!(f, "{}KiB", bytes >> 10),
            bytes => write!(f, "{bytes}"),
        }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (Some(first), Some(last)) = (port(first), port(last)) else {
            return Err(format!("\"{text}\" is not a port or a range of ports; write it as \"16384-32767\""));
        };
        if first > last {
            return Err(format!("\"{text}\" ends before it begins; did you mean \"{last}-{first}\"?"));
        }
        Ok(Self(first..=last))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for Block {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.trim().parse().map_err(|_| {
            format!("\"{text}\" is not an address or a block of addresses; write it as \"192.168.0.0/16\" (names are not looked up)")
        })?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => all,
            Some(bits) => {
                let bits = bits.trim().parse().ok().filter(|bits| *bits <= all);
                bits.ok_or_else(|| {
                    format!("\"{text}\": the number after the slash must be between 0 and {all}")
                })?
            }
        };
        Ok(Self(alg::Prefix { address, bits }))
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alg::Prefix { address, bits } = self.0;
        if bits == if address.is_ipv4() { 32 } else { 128 } {
            address.fmt(f)
        } else {
            write!(f, "{address}/{bits}")
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        for directive in text.split(',') {
            let (module, level) = directive.split_once('=').map_or(("", directive), |(m, l)| (m, l));
            let level = level.trim();
            if !LEVELS.contains(&level) {
                return Err(format!(
                    "\"{level}\" is not a log level; write one of {}, or for one module \"info,sipalg::alg=debug\"",
                    LEVELS.join(", ")
                ));
            }
            if directive.contains('=') && !module.trim().starts_with("sipalg") {
                return Err(format!(
                    "\"{}\" is not a module of sipalg (they begin with \"sipalg::\")",
                    module.trim()
                ));
            }
        }
        Ok(Self(text.split_whitespace().collect()))
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            path if path.starts_with('/') && !path.ends_with('/') => Ok(Self::At(path.into())),
            other => Err(format!("\"{other}\" must be \"auto\", \"none\" or the absolute path of a file")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::At(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // useradd(8), and what systemd takes: no word that a shell or a file of accounts could misread.
        let is_name = |name: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            name.chars().all(fits) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        };
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            name if is_name(name) => Ok(Self::Named(name.to_owned())),
            other => Err(format!("\"{other}\" must be \"auto\", \"none\" or the name of a user")),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads and writes a notation as a TOML string.
macro_rules! as_string {
    ($($name:ident: $what:literal),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                from.deserialize_str(Text)
            }
        }
    )*};
}

as_string!(
    Seconds: "a duration in quotes, as \"90s\" or \"15m\"",
    Size: "a size in quotes, as \"8MiB\"",
    Block: "an address or a block in quotes, as \"192.168.0.0/16\"",
    Level: "a log level in quotes, as \"info\"",
    Place: "\"auto\", \"none\" or an absolute path, in quotes",
    User: "\"auto\", \"none\" or the name of a user, in quotes"
);

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.start() == self.0.end() { to.serialize_u16(*self.0.start()) } else { to.collect_str(self) }
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Ports;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, or a range of ports in quotes, as \"16384-32767\"")
            }
            fn visit_i64<E: serde::de::Error>(self, port: i64) -> Result<Ports, E> {
                let port = u16::try_from(port).ok().filter(|port| *port > 0);
                port.map(|port| Ports(port..=port))
                    .ok_or_else(|| E::custom("a port is a number from 1 to 65535"))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ports, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_in_their_largest_unit() {
        for (text, seconds, shortest) in [
            ("64s", 64, "64s"),
            ("60s", 60, "1m"),
            ("15m", 900, "15m"),
            ("90m", 5400, "90m"),
            ("1h", 3600, "1h"),
            ("2 d", 172_800, "2d"),
            ("0s", 0, "0s"),
        ] {
            let span: Seconds = text.parse().unwrap();
            assert_eq!(span.0.as_secs(), seconds, "{text}");
            assert_eq!(span.to_string(), shortest);
        }
        for wrong in ["", "64", "s", "-1s", "1.5h", "1w", "1h30m", "999999999d"] {
            assert!(wrong.parse::<Seconds>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_in_their_largest_unit() {
        for (text, bytes, shortest) in [
            ("8MiB", 8 << 20, "8MiB"),
            ("1024KiB", 1 << 20, "1MiB"),
            ("1500", 1500, "1500"),
            ("1500 B", 1500, "1500"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.0, bytes, "{text}");
            assert_eq!(size.to_string(), shortest);
        }
        for wrong in ["", "MiB", "8MB", "8M", "-8MiB", "99999999999999999999GiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports_are_single_or_a_range() {
        assert_eq!("5060".parse(), Ok(Ports(5060..=5060)));
        assert_eq!("16384 - 32767".parse(), Ok(Ports(16384..=32767)));
        assert_eq!(Ports(16384..=32767).to_string(), "16384-32767");
        assert_eq!(
            "2-1".parse::<Ports>().unwrap_err(),
            "\"2-1\" ends before it begins; did you mean \"1-2\"?"
        );
        for wrong in ["", "0", "0-5", "65536", "1-2-3", "sip"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn blocks_are_addresses_with_or_without_a_length() {
        for text in ["192.168.0.0/16", "10.1.2.3", "2001:db8::/32", "2001:db8::1", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Block>().unwrap().to_string(), text);
        }
        assert_eq!("10.1.2.3/32".parse::<Block>().unwrap().to_string(), "10.1.2.3");
        for wrong in ["", "sip.example.org", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/x"] {
            assert!(wrong.parse::<Block>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn levels_are_known_words() {
        for text in ["info", "off", "warn,sipalg::alg=debug", "info, sipalg::kernel = trace"] {
            assert_eq!(text.parse::<Level>().unwrap().0, text.replace(' ', ""));
        }
        for wrong in ["", "infoo", "info,", "info,sipalg::alg", "info,alg=debug", "verbose"] {
            assert!(wrong.parse::<Level>().is_err(), "{wrong}");
        }
    }
}
