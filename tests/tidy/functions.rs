//! How long functions are: what stands in functions inside of them is theirs.

use super::{assert_none, sources};

/// Lines of a function.
const LINES_MAX: usize = 70;

/// The indentation of a line on which a function begins that is not all of it.
fn begins(line: &str, is_lua: bool) -> Option<usize> {
    let text = line.trim_start();
    let indentation = line.len() - text.len();
    if is_lua {
        let is_one = text.starts_with("function ")
            || text.starts_with("local function ")
            || text.contains("= function(")
            || text.contains("return function(");
        return (is_one && !text.ends_with(" end")).then_some(indentation);
    }
    let words = text.split('(').next().unwrap_or_default();
    let is_one = words.starts_with("fn ") || text.contains(" fn ") && !text.contains('"');
    let is_item = is_one
        && ["fn ", "pub", "const ", "async ", "unsafe "].iter().any(|word| text.starts_with(word));
    (is_item && !text.ends_with([';', '}'])).then_some(indentation)
}

/// The number of a line, from 0, and how many a function has from there on, for all of a source
/// that are not those of its tests.
fn lengths(source: &str, is_lua: bool) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let (mut open, mut found): (Vec<(usize, usize, usize)>, _) = (Vec::new(), Vec::new());
    for (number, line) in lines.iter().enumerate() {
        let rest_at = |indentation: usize| {
            line.strip_prefix(&" ".repeat(indentation)[..]).unwrap_or_default()
        };
        let last = open.last().map(|&(indentation, ..)| rest_at(indentation));
        // A method of a trait, without a body.
        if last.is_some_and(|rest| !is_lua && rest.starts_with(')') && rest.ends_with(';')) {
            open.pop();
        } else if last.is_some_and(|rest| rest.starts_with(if is_lua { "end" } else { "}" }))
            && let Some((_, start, nested)) = open.pop()
        {
            let all = number + 1 - start;
            found.push((start, all - nested));
            if let Some((.., nested)) = open.last_mut() {
                *nested += all;
            }
        } else if let Some(indentation) = begins(line, is_lua) {
            open.push((indentation, number, 0));
        }
    }
    found
}

#[test]
fn functions_are_short_enough() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (path, source) in sources(&["rs", "lua"]) {
        let is_test = ["_test.rs", "tests.rs", "testing.rs"].iter().any(|end| path.ends_with(end));
        if is_test || !(path.starts_with("src/") || path.starts_with("lua/")) {
            continue;
        }
        let source = source.split("\n#[cfg(test)]\n").next().unwrap();
        for (number, length) in lengths(source, path.ends_with(".lua")) {
            count += 1;
            if length > LINES_MAX {
                let line = source.lines().nth(number).unwrap().trim();
                let number = number + 1;
                wrong.push(format!("{path}:{number}: {length} lines, {LINES_MAX} at most: {line}"));
            }
        }
    }
    assert!(count > 3000, "functions are found: {count}");
    assert_none(&wrong);
}

#[test]
fn functions_inside_of_others_are_not_counted_twice() {
    let rust = "fn a() {\n    fn b() {\n        c();\n    }\n}\n";
    assert_eq!(lengths(rust, false), [(1, 3), (0, 2)]);
    let lua = "local function a()\n    b(1)\n    return function()\n        c()\n    end\nend\n";
    assert_eq!(lengths(lua, true), [(2, 3), (0, 3)]);
}
