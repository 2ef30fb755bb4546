//! What can be wrong with the store.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the store cannot do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file or folder of the store.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A description that cannot be read.
    #[error("{}: expected the description of a pulled model: {message}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Several models of that name.
    #[error("{name:?} may be {}; say which", names.join(" or "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The names it may mean.
        names: Vec<String>,
    },
    /// No model of that name.
    #[error("no pulled model is called {name:?}{}", suggest(near))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names that it may have meant.
        near: Vec<String>,
    },
}

fn suggest(near: &[String]) -> String {
    match near {
        [] => "; puna list shows what there is".to_owned(),
        near => format!("; did you mean {}?", near.join(" or ")),
    }
}
