//! Which keys there are, and which one was meant.
//!
//! The list comes from the defaults, written out as TOML: a key that the reader knows is in it, because there is no
//! other list.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::raw::Raw;

/// All keys with their default values as TOML text, by section; the section of keys outside of any is `""`.
pub fn all() -> Vec<Key> {
    of(&Raw::default())
}

/// The paths of all keys that have other values in one than in the other.
pub fn changed(one: &Raw, other: &Raw) -> Vec<String> {
    let pairs = of(one).into_iter().zip(of(other));
    pairs.filter(|(one, other)| one != other).map(|(key, _)| key.path()).collect()
}

fn of(raw: &Raw) -> Vec<Key> {
    let table = toml::Table::try_from(raw).expect("settings have string keys and plain values");
    let mut keys = Vec::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(section) => keys.extend(section.into_iter().map(|(key, value)| Key {
                section: name.clone(),
                name: key,
                default: value.to_string(),
            })),
            value => keys.push(Key { section: String::new(), name, default: value.to_string() }),
        }
    }
    keys
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The section that it stands in, without brackets.
    pub section: String,
    /// Its name in that section.
    pub name: String,
    /// The default, as TOML.
    pub default: String,
}

impl Key {
    /// `section.name`, or the name alone.
    pub fn path(&self) -> String {
        if self.section.is_empty() { self.name.clone() } else { format!("{}.{}", self.section, self.name) }
    }
}

/// The first key of `file` that does not exist: where it stands, and what to say about it.
pub(super) fn first_unknown(file: &DeTable<'_>) -> Option<(Range<usize>, String)> {
    let known = all();
    let mut found: Vec<(Range<usize>, String)> = Vec::new();
    for (name, value) in file {
        let at = name.span();
        let name: &str = name.get_ref();
        if known.iter().any(|key| key.section.is_empty() && key.name == name) {
            continue;
        }
        if !known.iter().any(|key| key.section == name) {
            let what = if value.get_ref().is_table() { "section" } else { "key" };
            found.push((at, complaint(what, name, None, &known)));
        } else if let DeValue::Table(section) = value.get_ref() {
            for key in section.keys() {
                if !known.iter().any(|k| k.section == name && k.name == *key.get_ref()) {
                    found.push((key.span(), complaint("key", key.get_ref(), Some(name), &known)));
                }
            }
        }
    }
    found.into_iter().min_by_key(|(at, _)| at.start)
}

/// What to say about an unknown name: the one in the same section that it resembles, or else the one of another
/// section, or else what there is.
fn complaint(what: &str, name: &str, section: Option<&str>, known: &[Key]) -> String {
    let place = section.map(|section| format!(" in [{section}]")).unwrap_or_default();
    let here: Vec<&str> = match section {
        Some(section) => known.iter().filter(|k| k.section == section).map(|k| k.name.as_str()).collect(),
        None => {
            let mut names: Vec<&str> = known
                .iter()
                .map(|k| if k.section.is_empty() { &k.name } else { &k.section })
                .map(String::as_str)
                .collect();
            names.dedup();
            names
        }
    };
    // Of several sections the administrator knows which one is meant.
    let elsewhere: Vec<&str> = known
        .iter()
        .filter(|k| k.name == name && Some(k.section.as_str()) != section)
        .map(|k| k.section.as_str())
        .collect();
    let hint = if elsewhere.contains(&"") {
        format!("\"{name}\" stands at the top of the file, before the first section")
    } else if !elsewhere.is_empty() {
        format!("\"{name}\" belongs into [{}]", elsewhere.join("] or ["))
    } else if let Some(near) = nearest(name, &here) {
        if what == "section" {
            format!("did you mean [{near}]?")
        } else {
            format!("did you mean \"{near}\"?")
        }
    } else {
        format!("there are: {}", here.join(", "))
    };
    format!("unknown {what} \"{name}\"{place}; {hint}")
}

/// The candidate that most resembles `name`, if one does at all.
fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let plain = name.replace('_', "-").to_lowercase();
    candidates
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&plain, candidate), *candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
