//! What travels between contexts.
