//! Where `require` looks: LUA_PATH and LUA_CPATH, the main script's folder, and what is usual.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::lua::Paths;
use crate::vm::prelude;

/// Only Debian and its derivatives have this file, and keep modules for Lua 5.1 in the two places
/// below.
const DEBIAN: &str = "/etc/debian_version";

const DEBIAN_PATH: &str = "/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua";

fn debian_cpath() -> String {
    format!("/usr/lib/{}-linux-gnu/lua/5.1/?.so", std::env::consts::ARCH)
}

/// What `package.path` and `package.cpath` of the main script are.
///
/// # Errors
/// Without memory to find out.
pub(super) fn find(script: Option<&Path>, ignores_environment: bool) -> std::io::Result<Paths> {
    let Some((mut path, mut cpath)) = prelude::default_paths() else {
        return Err(std::io::ErrorKind::OutOfMemory.into());
    };
    if Path::new(DEBIAN).exists() {
        path = add(&path, DEBIAN_PATH.as_bytes());
        cpath = add(&cpath, debian_cpath().as_bytes());
    }
    let beside = script.map(beside);
    let variable = |name| std::env::var_os(name).filter(|_| !ignores_environment);
    let path = match (variable("LUA_PATH"), beside) {
        (Some(text), beside) => expand(&text.into_vec(), &path, beside.as_deref()),
        (None, Some(beside)) => [&beside, &b";"[..], &path].concat(),
        (None, None) => path,
    };
    let cpath = match variable("LUA_CPATH") {
        Some(text) => expand(&text.into_vec(), &cpath, None),
        None => cpath,
    };
    Ok(Paths { path, cpath })
}

/// Adds templates that are not there, before the one for several modules in one file.
fn add(path: &[u8], templates: &[u8]) -> Vec<u8> {
    let mut all: Vec<&[u8]> = path.split(|&byte| byte == b';').collect();
    let is_last = all.last().is_some_and(|last| last.ends_with(b"/loadall.so"));
    let mut place = all.len() - usize::from(is_last);
    for template in templates.split(|&byte| byte == b';') {
        if !all.contains(&template) {
            all.insert(place, template);
            place += 1;
        }
    }
    all.join(&b';')
}

/// Puts what is usual in the place of `;;`, with the script's folder before it; that comes last if
/// there is no such place.
fn expand(text: &[u8], usual: &[u8], beside: Option<&[u8]>) -> Vec<u8> {
    let usual = match beside {
        Some(beside) => [beside, b";", usual].concat(),
        None => usual.to_owned(),
    };
    let mut found = Vec::new();
    let (mut rest, mut is_there) = (text, false);
    while let Some(at) = memchr::memmem::find(rest, b";;") {
        found.extend([&rest[..at], b";", &usual, b";"].concat());
        (rest, is_there) = (&rest[at + 2..], true);
    }
    found.extend(rest);
    while found.first() == Some(&b';') {
        found.remove(0);
    }
    while found.last() == Some(&b';') {
        found.pop();
    }
    match beside {
        Some(beside) if !is_there => [&found, &b";"[..], beside].concat(),
        _ => found,
    }
}

/// Templates that find modules beside the main script.
fn beside(script: &Path) -> Vec<u8> {
    let folder = match script.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.as_os_str().as_bytes(),
        _ => b".",
    };
    [folder, b"/?.lua;", folder, b"/?/init.lua"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_semicolons_stand_for_what_is_usual() {
        assert_eq!(expand(b"a;;b", b"u", None), b"a;u;b");
        assert_eq!(expand(b";;", b"u", Some(b"s")), b"s;u");
        assert_eq!(expand(b"a", b"u", Some(b"s")), b"a;s");
        assert_eq!(expand(b"a", b"u", None), b"a");
    }

    #[test]
    fn templates_are_added_once_and_before_loadall() {
        assert_eq!(add(b"./?.so;/x/loadall.so", b"/d/?.so"), b"./?.so;/d/?.so;/x/loadall.so");
        assert_eq!(add(b"a;b", b"b;c"), b"a;b;c");
    }
}
