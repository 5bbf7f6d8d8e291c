//! The lab tried on routers of which the outcome is known. Needs root and `ip`, `nft`, as the lab does.

use sipalg::lab::{self, LabOptions, Report, Translation};

#[test]
fn without_nat_everything_holds_without_sipalg() {
    let options = LabOptions { translation: Translation::None, ..LabOptions::default() };
    let report = lab::run(&options, |_| ()).unwrap();
    assert!(report.ok, "{}", pretty(&report));
    assert_eq!(report.phones.len(), 10);
}

#[test]
fn behind_nat_without_sipalg_the_report_says_what_fails() {
    let options = LabOptions::default();
    let report = lab::run(&options, |_| ()).unwrap();
    assert!(!report.ok, "{}", pretty(&report));
}

fn pretty(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap()
}
