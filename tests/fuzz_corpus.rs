//! The fuzz corpora, replayed: every committed input of every target goes through its body, without a fuzzer.
//!
//! A crash that a fuzzer found is committed to `fuzz/corpus` under a name that tells what it was.

use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use sipalg::fuzzing::{TARGETS, Target};

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Replays the corpus of `target`; all inputs that show a fault are named.
fn replay(target: &str) {
    let (_, body): (&str, Target) =
        *TARGETS.iter().find(|(name, _)| *name == target).expect("a target of this name");
    let mut files: Vec<PathBuf> = fs::read_dir(corpus(target))
        .expect("the corpus is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 8, "{target} has hardly a corpus");
    let at_fault = |file: &PathBuf| {
        let input = fs::read(file).expect("a readable input");
        catch_unwind(|| body(&input)).is_err()
    };
    let faults: Vec<PathBuf> = files.into_iter().filter(at_fault).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn packet() {
    replay("packet");
}

#[test]
fn sip() {
    replay("sip");
}

#[test]
fn sdp() {
    replay("sdp");
}

#[test]
fn engine() {
    replay("engine");
}

#[test]
fn tcp() {
    replay("tcp");
}

#[test]
fn differential() {
    replay("differential");
}

#[test]
fn every_target_has_a_binary_a_corpus_and_a_test_here() {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let cargo = fs::read_to_string(manifest.join("fuzz/Cargo.toml")).expect("a manifest");
    let here = fs::read_to_string(manifest.join(file!())).expect("this file");
    for (name, _) in TARGETS {
        assert!(cargo.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let target = fs::read_to_string(manifest.join(format!("fuzz/fuzz_targets/{name}.rs"))).expect(name);
        assert!(target.contains(&format!("sipalg::fuzzing::{name}(data)")), "{name}");
        assert!(here.contains(&format!("replay(\"{name}\")")), "{name}");
    }
    let corpora = fs::read_dir(manifest.join("fuzz/corpus")).expect("corpora").count();
    assert_eq!(corpora, TARGETS.len(), "a corpus without a target");
}

#[test]
fn the_corpora_are_small() {
    let sizes = TARGETS.iter().flat_map(|(name, _)| fs::read_dir(corpus(name)).expect("a corpus"));
    let sizes: Vec<u64> =
        sizes.map(|entry| entry.expect("an entry").metadata().expect("a file").len()).collect();
    assert!(sizes.iter().sum::<u64>() < 1 << 20, "more than 1 MB in all");
    assert!(sizes.iter().all(|size| *size <= 1 << 16), "an input that no datagram holds");
}
