//! Comparing what was printed with what was promised; `...` in a promise stands for anything.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::process::{node_lua, run};
use super::stem;

/// Compares line by line; a description of the first difference if there is one.
pub(crate) fn compare(promised: &str, printed: &str) -> Result<(), String> {
    let mut expected = promised.lines();
    let mut found = printed.lines();
    let mut number = 0;
    loop {
        number += 1;
        match (expected.next(), found.next()) {
            (None, None) => return Ok(()),
            (Some(pattern), Some(line)) if is_match(pattern, line) => {}
            (pattern, line) => {
                let mut text = format!("line {number}:\n");
                let end = "(end of output)";
                writeln!(text, "  promised: {}", pattern.unwrap_or(end)).unwrap();
                writeln!(text, "  printed:  {}", line.unwrap_or(end)).unwrap();
                return Err(text);
            }
        }
    }
}

/// True if the line is the pattern with each `...` replaced by any text.
pub(crate) fn is_match(pattern: &str, line: &str) -> bool {
    let parts: Vec<&str> = pattern.split("...").collect();
    let [first, middle @ .., last] = parts.as_slice() else { return pattern == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The promised output in the header of an example: the lines after `-- Expected output:`, each
/// indented by two spaces, up to the first line that is not.
pub(crate) fn promise(source: &str) -> Option<String> {
    let (_, block) = source.split_once("-- Expected output:\n")?;
    let lines = block.lines().map_while(|line| line.strip_prefix("--   "));
    Some(lines.map(|line| format!("{line}\n")).collect())
}

/// Addresses differ from run to run.
pub(crate) fn without_addresses(text: &str) -> String {
    let mut pieces = text.split("0x");
    let mut result = pieces.next().unwrap().to_owned();
    for piece in pieces {
        result.push_str("ADDR");
        result.push_str(piece.trim_start_matches(|letter: char| letter.is_ascii_hexdigit()));
    }
    result
}

/// Runs a script in its folder. What differs from its `.expected`, which `luajit` has printed
/// there, if anything does.
pub(crate) fn difference_from_recorded(script: &Path) -> Option<String> {
    let (folder, name) = (script.parent().unwrap(), script.file_name().unwrap());
    let done = run(node_lua().current_dir(folder).arg(name));
    let expected = fs::read_to_string(script.with_extension("expected")).unwrap();
    let printed = without_addresses(&(done.stdout.clone() + &done.stderr));
    if expected == printed {
        return None;
    }
    let mut lines = expected.lines().zip(printed.lines());
    let name = stem(script);
    Some(match lines.find(|(wanted, found)| wanted != found) {
        Some((wanted, found)) => format!("{name}: expected\n  {wanted}\nfound\n  {found}\n{done}"),
        None => format!("{name}: not as long as expected: {done}"),
    })
}
