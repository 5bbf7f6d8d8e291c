//! What is shipped beside the program: the unit, the pages and completions, the package's own files.
//!
//! Needs `systemd-analyze` and fails without it. What systemd makes of the unit, and dpkg of the package, in a whole
//! Debian system, is the business of `tests/vm/package.sh`.

use std::fs;
use std::path::Path;
use std::process::Command;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `systemd-analyze security` says of the unit: the lines, and the number at the end.
fn exposure(unit: &Path) -> (String, f32) {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(unit)
        .env("LC_ALL", "C")
        .output()
        .expect("systemd is installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let last =
        said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{said}"));
    let (_, number) = last.split_once(": ").expect(last);
    let number = number.split_whitespace().next().expect(last).parse().expect(last);
    (said, number)
}

#[test]
fn systemd_finds_the_unit_hardly_exposed() {
    let (said, number) = exposure(&repository().join("src/daemon/sipalg.service"));
    assert!(number <= 2.0, "{said}");
    // The oracle can tell: without its walls the same unit is exposed.
    let text = fs::read_to_string(repository().join("src/daemon/sipalg.service")).expect("the unit");
    let open: String = text
        .lines()
        .filter(|line| {
            !["Protect", "Private", "SystemCall", "User="].iter().any(|wall| line.starts_with(wall))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let directory = tempfile::tempdir().expect("a directory");
    let bare = directory.path().join("sipalg.service");
    fs::write(&bare, open).expect("written");
    assert!(exposure(&bare).1 > 4.0);
}
