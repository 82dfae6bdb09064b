//! Reference-counted bytes.
