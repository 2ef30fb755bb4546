//! Words shared by every Puna crate: configuration, data types, tensors by name.
