//! Imports run one way, and the core is pure: the source tree is read and held against the table in `src/lib.rs`.
//!
//! The test knows words, not Rust: comments, texts and test modules are cut out first, then paths that begin with
//! `crate` or `super` are resolved, in `use` groups too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which top-level modules may be imported by which. A module that is not here must be added, with its place.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // Leaves.
    ("span", &[]),
    ("edit", &["span"]),
    ("expiring", &[]),
    ("netlink", &[]),
    ("ip_text", &[]),
    ("search", &[]),
    // Text and bytes: neither knows the other.
    ("packet", &["span"]),
    ("sip", &["span", "ip_text", "search"]),
    ("sdp", &["span", "ip_text", "search"]),
    // The engine.
    ("alg", &["span", "edit", "expiring", "ip_text", "search", "packet", "sip", "sdp"]),
    // Shells: neither queue nor kernel knows the other, nor the configuration.
    ("queue", &["alg", "packet", "edit", "span", "netlink"]),
    ("kernel", &["alg", "netlink"]),
    ("config", &["alg"]),
    // The oracles of the fuzz targets: they drive the engine like a shell.
    ("fuzzing", &["alg", "packet", "sip", "sdp", "edit", "span", "ip_text"]),
    ("control", &["alg", "config", "kernel", "queue", "daemon"]),
    (
        "daemon",
        &["alg", "config", "kernel", "queue", "control", "packet", "span", "edit", "expiring", "netlink"],
    ),
    (
        "lab",
        &["alg", "config", "kernel", "queue", "daemon", "control", "packet", "sip", "sdp", "span", "netlink"],
    ),
    (
        "cli",
        &[
            "alg", "config", "kernel", "queue", "daemon", "control", "lab", "packet", "sip", "sdp", "span",
            "edit", "netlink",
        ],
    ),
    ("main", &["cli", "sipalg"]),
];

const CORE: &[&str] = &["span", "edit", "expiring", "ip_text", "search", "packet", "sip", "sdp", "alg"];

/// What the core does not do: no input or output, no clock, no randomness, no lock, no panic by carelessness. It knows no
/// format either; that its types can be written down (serde's traits, `alg::state`) says nothing of how.
const NEVER_IN_CORE: &[&str] = &[
    "unsafe",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::io",
    "UdpSocket",
    "TcpStream",
    "Instant::now",
    "SystemTime",
    "println!",
    "eprintln!",
    "dbg!",
    "print!",
    ".unwrap()",
    "todo!",
    "unimplemented!",
    "panic!",
    "Mutex",
    "RwLock",
    "RandomState",
    "static mut",
    "tracing::",
    "serde_json",
    "toml::",
    "libc::",
];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("src can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|it| it == "rs") {
                into.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 40, "{paths:?}");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("UTF-8");
        (path.strip_prefix(&root).expect("below src").to_path_buf(), text)
    };
    paths.into_iter().map(read).collect()
}

/// `alg/engine/mod.rs` is `alg::engine`; `main.rs` is `main`, `lib.rs` nothing.
fn module_of(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = path
        .with_extension("")
        .components()
        .map(|it| it.as_os_str().to_string_lossy().into_owned())
        .collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts
}

/// The code alone: comments, strings and character literals become blanks, test modules vanish.
fn code_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest, at.checked_sub(1).map(|before| bytes[before])) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = rest.find('"').expect("it begins a string") + 1;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if rest.starts_with('"') {
            string_end(rest)
        } else if rest.starts_with('\'') {
            character_end(rest)
        } else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..length]);
            at += length;
            continue;
        };
        out.push(' ');
        at += length;
    }
    without_tests(&out)
}

fn raw_string(rest: &str, before: Option<u8>) -> Option<usize> {
    if before.is_some_and(|it| it.is_ascii_alphanumeric() && it != b'b' || it == b'_') {
        return None;
    }
    let hashes = rest.strip_prefix('r')?;
    let count = hashes.bytes().take_while(|it| *it == b'#').count();
    hashes[count..].starts_with('"').then_some(count)
}

fn string_end(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The end of a character literal; a lifetime is one byte long here.
fn character_end(rest: &str) -> usize {
    let inner = &rest[1..];
    if inner.starts_with('\\') {
        return 1 + inner[2..].find('\'').map_or(inner.len(), |end| end + 3);
    }
    let first = inner.chars().next().map_or(0, char::len_utf8);
    if first > 0 && inner[first..].starts_with('\'') { first + 2 } else { 1 }
}

/// Cuts out what stands under `#[cfg(test)]`, up to the brace or semicolon that ends it.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..start]);
        let after = &rest[start..];
        let (mut depth, mut end) = (0, after.len());
        for (at, byte) in after.bytes().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b';' if depth == 0 => {}
                _ => continue,
            }
            if depth == 0 {
                end = at + 1;
                break;
            }
        }
        rest = &after[end..];
    }
    out + rest
}

/// Files that are test modules (`#[cfg(test)] mod tests;`), which may do what they like.
fn is_test(path: &Path, all: &BTreeMap<Vec<String>, String>) -> bool {
    let module = module_of(path);
    let Some((name, parent)) = module.split_last() else { return false };
    let declares = |parent: &[String]| {
        all.get(parent).is_some_and(|text| {
            let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
            flat.contains(&format!("#[cfg(test)] mod {name};"))
        })
    };
    declares(parent)
}

/// All paths in `code` that begin with `crate` or `super`, as full paths from the root; groups are taken apart.
fn imports(code: &str, module: &[String]) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for word in ["crate", "super"] {
        let mut from = 0;
        while let Some(at) = code[from..].find(word).map(|it| from + it) {
            from = at + word.len();
            let before = code[..at].bytes().next_back();
            if before.is_some_and(|it| it.is_ascii_alphanumeric() || matches!(it, b'_' | b':' | b'(' | b'$'))
            {
                continue;
            }
            walk(&code[at..], &[], module, &mut found);
        }
    }
    found
}

/// Reads one path, or one group element, at the start of `code`; the answer is what is left.
fn walk<'a>(
    code: &'a str,
    so_far: &[String],
    module: &[String],
    found: &mut BTreeSet<Vec<String>>,
) -> &'a str {
    let mut path = so_far.to_vec();
    let mut rest = code.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            let mut inner = group.trim_start();
            while !inner.is_empty() && !inner.starts_with('}') {
                inner = walk(inner, &path, module, found).trim_start();
                inner = inner.strip_prefix(',').unwrap_or(inner).trim_start();
            }
            return inner.strip_prefix('}').unwrap_or(inner);
        }
        let length = rest.bytes().take_while(|it| it.is_ascii_alphanumeric() || *it == b'_').count();
        let length = if length == 0 && rest.starts_with('*') { 1 } else { length };
        if length == 0 {
            let next = rest.chars().next().map_or(0, char::len_utf8);
            return &rest[next..];
        }
        let name = &rest[..length];
        rest = rest[length..].trim_start();
        match name {
            "crate" => path.clear(),
            "super" if path.is_empty() && so_far.is_empty() => path = module[..module.len() - 1].to_vec(),
            "super" => {
                path.pop();
            }
            "self" => {}
            _ => path.push(name.to_string()),
        }
        match rest.strip_prefix("::") {
            Some(more) => rest = more.trim_start(),
            None => break,
        }
    }
    found.insert(path);
    rest.strip_prefix("as ").map_or(rest, |alias| {
        let end = alias.find([',', '}', ';']).unwrap_or(alias.len());
        &alias[end..]
    })
}

/// The sources by path, and again by module.
type Sources = (Vec<(PathBuf, String)>, BTreeMap<Vec<String>, String>);

fn all() -> Sources {
    let sources = sources();
    let by_module = sources.iter().map(|(path, text)| (module_of(path), text.clone())).collect();
    (sources, by_module)
}

#[test]
fn imports_run_one_way() {
    let (sources, by_module) = all();
    let table: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, text) in &sources {
        let module = module_of(path);
        let Some(top) = module.first() else { continue };
        if is_test(path, &by_module) {
            continue;
        }
        let allowed = table.get(top.as_str()).unwrap_or_else(|| panic!("{top} has no place in the table"));
        for import in imports(&code_of(text), &module) {
            let Some(target) = import.first().filter(|target| *target != top) else { continue };
            seen.insert((top.clone(), target.clone()));
            if !allowed.contains(&target.as_str()) && table.contains_key(target.as_str()) {
                wrong.push(format!("{}: {}", path.display(), import.join("::")));
            }
        }
    }
    assert_eq!(wrong, [""; 0], "imports that the table does not allow");
    // The test would see nothing if it could not read.
    for (from, to) in
        [("alg", "sip"), ("alg", "packet"), ("sip", "span"), ("queue", "alg"), ("kernel", "alg")]
    {
        assert!(seen.contains(&(from.into(), to.into())), "{from} → {to} was not found: {seen:?}");
    }
}

#[test]
fn the_table_has_no_circles() {
    // What a module may import stands above it, but for the shells' own entry (`control` and `daemon` talk).
    let order: Vec<_> = MAY_IMPORT.iter().map(|(name, _)| *name).collect();
    for (index, (name, allowed)) in MAY_IMPORT.iter().enumerate() {
        for target in allowed.iter().filter(|target| **target != "sipalg") {
            let place =
                order.iter().position(|it| it == target).unwrap_or_else(|| panic!("{target} is no module"));
            let mutual = matches!((*name, *target), ("control", "daemon"));
            assert!(place < index || mutual, "{name} may not import {target}, which stands below it");
        }
    }
    let may = |from: &str, to: &str| MAY_IMPORT.iter().any(|(name, to_)| *name == from && to_.contains(&to));
    for (from, to) in [
        ("sip", "packet"),
        ("sdp", "packet"),
        ("packet", "sip"),
        ("packet", "sdp"),
        ("sip", "sdp"),
        ("sdp", "sip"),
        ("alg", "queue"),
        ("alg", "kernel"),
        ("alg", "config"),
        ("alg", "netlink"),
        ("queue", "kernel"),
        ("kernel", "queue"),
        ("queue", "config"),
        ("kernel", "config"),
        ("queue", "sip"),
        ("kernel", "sip"),
    ] {
        assert!(!may(from, to), "{from} → {to}");
    }
}

#[test]
fn the_core_is_pure() {
    let (sources, by_module) = all();
    let mut wrong = Vec::new();
    for (path, text) in &sources {
        let module = module_of(path);
        let is_core = module.first().is_some_and(|top| CORE.contains(&top.as_str()));
        if !is_core || is_test(path, &by_module) {
            continue;
        }
        let code = code_of(text);
        for word in NEVER_IN_CORE {
            let is_word = |(at, _): &(usize, &str)| {
                let before = code[..*at].bytes().next_back();
                let after = code[at + word.len()..].bytes().next();
                let joins = |it: Option<u8>| it.is_some_and(|it| it.is_ascii_alphanumeric() || it == b'_');
                let (first, last) = (word.as_bytes()[0], word.as_bytes()[word.len() - 1]);
                !(first.is_ascii_alphanumeric() && joins(before)
                    || last.is_ascii_alphanumeric() && joins(after))
            };
            if code.match_indices(word).any(|it| is_word(&it)) {
                wrong.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn unsafe_code_stands_only_where_it_must() {
    let (sources, _) = all();
    for (path, text) in &sources {
        let code = code_of(text);
        let uses = code.split(|it: char| !(it.is_alphanumeric() || it == '_')).any(|word| word == "unsafe");
        if uses {
            let top = module_of(path).first().cloned().unwrap_or_default();
            assert!(matches!(top.as_str(), "queue" | "kernel" | "lab"), "{}", path.display());
            assert!(text.contains("#![allow(unsafe_code)]"), "{} does not say so", path.display());
            assert!(text.contains("// SAFETY:"), "{} does not say why", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    // Inner attributes with their reason may stand before it.
    let says = |text: &str| {
        let mut lines = text.lines().skip_while(|line| line.starts_with("#![") || line.starts_with("// "));
        lines.next().is_some_and(|line| line.starts_with("//! "))
    };
    let (sources, _) = all();
    let silent: Vec<_> = sources.iter().filter(|(_, text)| !says(text)).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "no `//!` at the top of {silent:?}");
}

#[test]
fn this_test_reads_rust_well_enough() {
    let code = code_of(
        "use crate::sip::{self, uri::Uri, via as v}; // crate::kernel\nlet a = \"crate::queue\"; let b = 'x'; let c: &'a str;\n\
         fn f() { super::super::packet::go(); } let r = r#\"crate::lab\"#;\n#[cfg(test)]\nmod tests { use crate::cli; }\n",
    );
    let module = ["alg", "engine", "media"].map(String::from);
    let found: Vec<_> = imports(&code, &module).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["alg::packet::go", "sip", "sip::uri::Uri", "sip::via"], "{code}");
    let deep = ["alg", "engine"].map(String::from);
    let found: Vec<_> =
        imports("use super::super::packet::go;", &deep).iter().map(|it| it.join("::")).collect();
    assert_eq!(found, ["packet::go"]);
}
