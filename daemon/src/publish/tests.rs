//! Staging, and what becomes of it.
