//! What was broken once, mostly for a user, and is not to break again: runs every script of
//! `tests/regress/` and compares its output with the file beside it.

mod support;

#[test]
fn what_was_mended_stays_so() {
    support::cases::assert_all_pass("tests/regress");
}
