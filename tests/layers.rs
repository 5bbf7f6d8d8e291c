//! Who may import whom: the table of `src/lib.rs`, held against the sources.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Layers from the top down; a module may import what stands below its own layer, and itself.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["daemon", "lab"],
    &["queue", "kernel", "config", "fuzzing"],
    &["alg"],
    &["sip", "sdp", "packet"],
    &["edit", "expiring", "netlink", "ip_text"],
    &["span"],
];

/// Where `unsafe` is allowed, with a reason at the top of each file: sockets, and the lab's namespaces.
const UNSAFE: &[&str] = &["queue/", "kernel/", "lab/netns.rs"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            found.push(entry);
        }
    }
}

/// Every source file, with the top module that it belongs to.
fn files() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let inner = path.strip_prefix(&src).expect("below src");
            let top = inner.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("UTF-8");
            (top.trim_end_matches(".rs").to_owned(), path, text)
        })
        .collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The top modules that code names behind `root` (`crate::`; in the binary `sipalg::`), with their lines.
fn imports(root: &str, text: &str) -> Vec<(usize, String)> {
    let code = |line: &str| !line.trim_start().starts_with("//");
    let name = |rest: &str| {
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("").to_owned()
    };
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| code(line)) {
        let places = line.match_indices(root).filter(|(at, _)| {
            !line[..*at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '"' || c == ':')
        });
        for (at, _) in places {
            let rest = &line[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(list) => found.extend(
                    list.split_inclusive(['{', '}', ','])
                        .map(|part| (number, name(part.trim_start())))
                        .filter(|(_, name)| layer(name).is_some()),
                ),
                None => found.push((number, name(rest))),
            }
        }
    }
    found
}

#[test]
fn imports_run_one_way() {
    let mut wrong = BTreeMap::new();
    for (module, path, text) in files() {
        if module == "lib" {
            continue;
        }
        let own = layer(&module).unwrap_or_else(|| panic!("{module} is in no layer: add it to the table"));
        let root = if module == "main" { "sipalg::" } else { "crate::" };
        for (line, import) in imports(root, &text) {
            let Some(other) = layer(&import) else { continue };
            if import != module && other <= own {
                wrong.insert(format!("{}:{line}", path.display()), format!("{module} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_check_of_imports_sees_what_it_should() {
    let text = "use crate::queue::netlink;\nuse crate::{alg, kernel::Kernel};\n// use crate::lab;\nlet x = crate::sip::parse(\"crate::sdp\");\n";
    let found = imports("crate::", text);
    let names: Vec<_> = found.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!(names, [(1, "queue"), (2, "alg"), (2, "kernel"), (4, "sip")]);
}

#[test]
fn unsafe_code_is_only_where_sockets_are() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (_, path, text) in files() {
        let allows = text.lines().any(|line| line.trim_start().starts_with("#![allow(unsafe_code)]"));
        let place = path.strip_prefix(&src).expect("below src").display().to_string();
        let may = UNSAFE.iter().any(|prefix| place.starts_with(prefix));
        assert!(!allows || may, "{place} allows unsafe code");
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for (_, path, text) in files() {
        assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
    }
}

#[test]
fn the_tour_in_lib_rs_shows_this_table() {
    let tour =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("the tour");
    let row = |layer: &&[&str]| match layer {
        [one] => (*one).to_owned(),
        several => format!("{{ {} }}", several.join(", ")),
    };
    let table = LAYERS.iter().map(row).collect::<Vec<_>>().join(" -> ");
    assert!(tour.contains(&format!("//! {table}\n")), "src/lib.rs does not show\n{table}");
}
