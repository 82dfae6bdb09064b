//! What `RUST_LOG` asks for. What it names that does not exist is complained about, and what
//! scripts fail with is shown unless it says `off`, and nothing else.

use log::LevelFilter;

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT: [(&str, LevelFilter); 2] =
    [("", LevelFilter::Warn), (super::SCRIPT, LevelFilter::Info)];

/// Whatever logs has a target that begins with one of these.
const TARGETS: [&str; 2] = [super::SCRIPT, "node_lua"];

/// The least severe level of each target, the longest name that fits first.
#[derive(Debug, PartialEq)]
pub(super) struct Filter {
    levels: Vec<(String, LevelFilter)>,
    /// A text without which nothing is logged but failures.
    pattern: Option<String>,
}

impl Filter {
    /// From the value of `RUST_LOG`, if it is set; and what is wrong with it.
    pub(super) fn new(wanted: Option<&str>) -> (Filter, Vec<String>) {
        let (directives, pattern) = match wanted.unwrap_or_default().split_once('/') {
            Some((directives, pattern)) => (directives, Some(pattern.to_owned())),
            None => (wanted.unwrap_or_default(), None),
        };
        let mut complaints = Vec::new();
        let mut levels = Vec::new();
        let words = directives.split(',').map(str::trim).filter(|word| !word.is_empty());
        for word in words {
            match directive(word) {
                Ok((name, level)) => levels.push((name.to_owned(), level)),
                Err(complaint) => complaints.push(complaint),
            }
        }
        let is_off = !levels.is_empty()
            && complaints.is_empty()
            && levels.iter().all(|(_, level)| *level == LevelFilter::Off)
            && levels.iter().any(|(name, _)| name.is_empty());
        if levels.is_empty() || !complaints.is_empty() {
            let given = std::mem::take(&mut levels);
            levels.extend(DEFAULT.map(|(name, level)| (name.to_owned(), level)));
            levels.extend(given);
        }
        let mut filter = Filter { levels, pattern };
        // The later one of two for the same name holds.
        filter.levels.reverse();
        filter.levels.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        if !is_off && filter.level(super::SCRIPT) < LevelFilter::Error {
            filter.levels.insert(0, (super::SCRIPT.to_owned(), LevelFilter::Error));
        }
        (filter, complaints)
    }

    /// The least severe level that is logged of a target.
    pub(super) fn level(&self, target: &str) -> LevelFilter {
        // What libraries think of errors that we report ourselves.
        if !TARGETS.iter().any(|known| target.starts_with(known)) {
            return LevelFilter::Off;
        }
        let found = self.levels.iter().find(|(name, _)| target.starts_with(name.as_str()));
        found.map_or(LevelFilter::Off, |(_, level)| *level)
    }

    /// The same of all.
    pub(super) fn max_level(&self) -> LevelFilter {
        self.levels.iter().map(|(_, level)| *level).max().unwrap_or(LevelFilter::Off)
    }

    pub(super) fn has_pattern(&self, text: &str) -> bool {
        self.pattern.as_deref().is_none_or(|pattern| text.contains(pattern))
    }
}

/// One word of `RUST_LOG`: a target, empty for all, and its level.
fn directive(word: &str) -> Result<(&str, LevelFilter), String> {
    let levels = "off, error, warn, info, debug or trace";
    let targets = TARGETS.join(", ");
    let Some((name, level)) = word.split_once('=') else {
        return match word.parse() {
            Ok(level) => Ok(("", level)),
            Err(_) if is_target(word) => Ok((word, LevelFilter::Trace)),
            Err(_) => Err(format!(
                "RUST_LOG: '{word}' is ignored: neither a level ({levels}) nor a target \
                 ({targets})"
            )),
        };
    };
    let (name, level) = (name.trim(), level.trim());
    match level.parse() {
        Err(_) => {
            let given = if level.is_empty() { "nothing" } else { level };
            Err(format!("RUST_LOG: '{word}' is ignored: a level ({levels}) expected, got {given}"))
        }
        Ok(_) if !is_target(name) => {
            Err(format!("RUST_LOG: '{word}' is ignored: '{name}' is no target ({targets})"))
        }
        Ok(level) => Ok((name, level)),
    }
}

fn is_target(name: &str) -> bool {
    let is_within = |target: &str| {
        name.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    TARGETS.iter().any(|target| is_within(target))
}

/// What is wrong with the value of `RUST_LOG_STYLE`.
pub(super) fn check_style(wanted: &str) -> Option<String> {
    let is_known = matches!(wanted, "" | "auto" | "always" | "never");
    (!is_known)
        .then(|| format!("RUST_LOG_STYLE: '{wanted}' is ignored: auto, always or never expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_is_complained_about_and_failures_are_shown() {
        let own = "node_lua::context";
        for (wanted, script, other, complaints) in [
            ("", LevelFilter::Info, LevelFilter::Warn, 0),
            (" , ", LevelFilter::Info, LevelFilter::Warn, 0),
            ("info", LevelFilter::Info, LevelFilter::Info, 0),
            ("WARN", LevelFilter::Warn, LevelFilter::Warn, 0),
            ("off", LevelFilter::Off, LevelFilter::Off, 0),
            ("off,script=off", LevelFilter::Off, LevelFilter::Off, 0),
            ("script=off", LevelFilter::Error, LevelFilter::Off, 0),
            ("node_lua=debug", LevelFilter::Error, LevelFilter::Debug, 0),
            ("node_lua::context", LevelFilter::Error, LevelFilter::Trace, 0),
            ("warn,script=debug", LevelFilter::Debug, LevelFilter::Warn, 0),
            ("warning", LevelFilter::Info, LevelFilter::Warn, 1),
            ("scirpt=info", LevelFilter::Info, LevelFilter::Warn, 1),
            ("scirpt=debug,script=trace", LevelFilter::Trace, LevelFilter::Warn, 1),
            ("script=loud,node-lua=info,error", LevelFilter::Info, LevelFilter::Error, 2),
            ("=info", LevelFilter::Info, LevelFilter::Warn, 1),
            ("scripts", LevelFilter::Info, LevelFilter::Warn, 1),
            ("of", LevelFilter::Info, LevelFilter::Warn, 1),
            ("off,scirpt=off", LevelFilter::Info, LevelFilter::Off, 1),
        ] {
            let (filter, found) = Filter::new(Some(wanted));
            assert_eq!((filter.level("script"), filter.level(own)), (script, other), "{wanted}");
            assert_eq!(found.len(), complaints, "{wanted}: {found:?}");
        }
        assert_eq!(Filter::new(None), Filter::new(Some("warn,script=info")));
        let (filter, _) = Filter::new(Some("info/needle"));
        assert!(filter.has_pattern("a needle") && !filter.has_pattern("hay"));
        assert!(check_style("alwyas").is_some() && check_style("auto").is_none());
    }
}
