//! Runs every script of `tests/conformance/` through the binary and compares its output with what
//! the contract of the API recorded.

mod support;

#[test]
fn every_recorded_case_behaves_as_the_contract_says() {
    support::cases::assert_all_pass("tests/conformance/cases");
}
