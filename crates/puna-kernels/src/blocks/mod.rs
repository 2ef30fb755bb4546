//! The quantised block formats.
