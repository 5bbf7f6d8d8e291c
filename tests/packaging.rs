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

/// The program's own pages and completions, in a directory.
fn generated() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_sipalg"))
        .arg("generate")
        .arg(directory.path())
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    directory
}

#[test]
fn every_subcommand_has_a_page_and_is_completed_and_the_packer_s_own_is_in_no_help() {
    let directory = generated();
    let help = Command::new(env!("CARGO_BIN_EXE_sipalg")).arg("--help").output().expect("it starts");
    let help = String::from_utf8(help.stdout).expect("text");
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.contains(&"run") && !commands.contains(&"generate"), "{help}");

    let mut pages: Vec<_> = fs::read_dir(directory.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter_map(|name| Some(name.strip_suffix(".8")?.to_owned()))
        .collect();
    pages.sort();
    let mut expected: Vec<_> = commands.iter().map(|name| format!("sipalg-{name}")).collect();
    expected.push("sipalg".to_owned());
    expected.sort();
    assert_eq!(pages, expected);
    for page in pages {
        let text = fs::read_to_string(directory.path().join(format!("{page}.8"))).expect("a page");
        let title = format!(".TH {page} 8 ");
        assert!(text.lines().any(|line| line.starts_with(&title)), "{title:?} is not in {text}");
    }
    for shell in ["sipalg.bash", "_sipalg", "sipalg.fish"] {
        let text = fs::read_to_string(directory.path().join(shell)).expect(shell);
        for command in &commands {
            assert!(text.contains(command), "{shell} does not know {command}");
        }
    }
    let said =
        Command::new("bash").arg("-n").arg(directory.path().join("sipalg.bash")).status().expect("bash");
    assert!(said.success());
}

#[test]
fn what_the_package_and_make_install_name_is_there() {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).expect("the manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let deb = &manifest["package"]["metadata"]["deb"];
    let makefile = fs::read_to_string(repository().join("Makefile")).expect("the Makefile");
    for asset in deb["assets"].as_array().expect("assets") {
        let source = asset[0].as_str().expect("a path");
        if source.starts_with("target/") {
            // Built, and installed by hand to the same place.
            let name = source.rsplit('/').next().expect("a name");
            assert!(makefile.contains(name), "make install forgets {source}");
        } else {
            assert!(repository().join(source).is_file(), "{source}");
        }
    }
    for script in ["prerm", "postrm"] {
        let text = fs::read_to_string(repository().join("src/daemon/debian").join(script)).expect(script);
        // Where cargo-deb puts systemd's part.
        assert_eq!(text.matches("\n#DEBHELPER#\n").count(), 1, "{script}");
        let checked =
            Command::new("sh").arg("-n").arg(repository().join("src/daemon/debian").join(script)).status();
        assert!(checked.expect("sh").success());
    }
    let user = fs::read_to_string(repository().join("src/daemon/sipalg.sysusers")).expect("the user");
    assert!(user.contains("\nu sipalg - "), "{user}");
    let unit = fs::read_to_string(repository().join("src/daemon/sipalg.service")).expect("the unit");
    assert!(unit.contains("\nUser=sipalg\n"), "{unit}");
    assert!(unit.contains("\nStartLimitIntervalSec=0\n"), "it must not give up: {unit}");
}
