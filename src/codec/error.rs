//! Why bytes are not what their format says; where, the reader knows.

use std::borrow::Cow;
use std::fmt;

/// What is wrong, in words. In a box: a result of its size is returned in registers.
#[derive(Debug)]
pub struct Error(Box<Cow<'static, str>>);

impl Error {
    /// In the words of a constant.
    #[cold]
    pub(super) fn new(what: &'static str) -> Error {
        Error(Box::new(Cow::Borrowed(what)))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    #[cold]
    fn custom<T: fmt::Display>(what: T) -> Error {
        Error(Box::new(Cow::Owned(what.to_string())))
    }
}

impl serde::ser::Error for Error {
    #[cold]
    fn custom<T: fmt::Display>(what: T) -> Error {
        serde::de::Error::custom(what)
    }
}
