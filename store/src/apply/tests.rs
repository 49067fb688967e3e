//! Effects against a model of rows in a map.
