//! Contexts: who runs, and when.
