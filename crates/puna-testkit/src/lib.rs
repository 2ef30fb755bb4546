//! Test helpers: error bounds, golden files, tiny models.
