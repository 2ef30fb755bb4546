//! What can go wrong between a repository's name and its files.

use thiserror::Error;

/// Why a repository, or a file of it, cannot be had.
#[derive(Debug, Error)]
pub enum PullError {
    /// Not the name of a repository.
    #[error("expected ORG/NAME, ORG/NAME:FILE or ORG/NAME:TYPE, found {found:?}")]
    Reference {
        /// What was given.
        found: String,
    },
    /// An option that cannot be used.
    #[error("{name}: expected {expected}, found {found:?}")]
    Option {
        /// Which one.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// The network is not to be used.
    #[error("{repository}: cannot be fetched, since HF_HUB_OFFLINE is set")]
    Offline {
        /// What was to be fetched.
        repository: String,
    },
    /// A token that the hub does not know.
    #[error("{endpoint} does not know the token in HF_TOKEN, or the one that a login left behind")]
    Token {
        /// The hub.
        endpoint: String,
    },
    /// Access must be asked for.
    #[error(
        "{repository}: access is restricted{}; ask for it at {page}, then {}",
        tell(message),
        set_token(*has_token)
    )]
    Gated {
        /// The repository.
        repository: String,
        /// Where to ask.
        page: String,
        /// What the server says about it, if anything.
        message: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// No such repository, or a private one.
    #[error(
        "{repository}: no such repository at {endpoint}; if it is private, {}",
        set_token(*has_token)
    )]
    NoRepository {
        /// The repository.
        repository: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// No such branch, tag or commit.
    #[error("{repository}: no branch, tag or commit is called {revision:?}")]
    NoRevision {
        /// The repository.
        repository: String,
        /// What was asked for.
        revision: String,
    },
    /// No such file or type.
    #[error("{repository}: no file or type is called {wanted:?}; {}", offer(near, choices))]
    NoFile {
        /// The repository.
        repository: String,
        /// What was asked for.
        wanted: String,
        /// What it may have meant.
        near: Vec<String>,
        /// Models that are there.
        choices: Vec<String>,
    },
    /// A repository without anything that Puna runs.
    #[error(
        "{repository}: no model in it: expected a .gguf file, config.json with safetensors or pytorch_model*.bin, or params.json with consolidated.*.pth"
    )]
    NoModel {
        /// The repository.
        repository: String,
    },
    /// Several models, and none was named.
    #[error("{repository} has several models; name one, as in {repository}:{first}", first = names[0])]
    Several {
        /// The repository.
        repository: String,
        /// What can be named.
        names: Vec<String>,
    },
    /// A description of a repository that cannot be read.
    #[error("{url}: expected the description of a repository: {message}")]
    Listing {
        /// Where it came from.
        url: String,
        /// What is wrong with it.
        message: String,
    },
    /// Files that cannot be kept as one model.
    #[error("{repository}: {message}")]
    Files {
        /// The repository.
        repository: String,
        /// What is wrong with them.
        message: String,
    },
    /// A file of another size than the hub said.
    #[error("{file}: expected {expected} bytes, the server says {found:?}")]
    Size {
        /// The file.
        file: String,
        /// What the repository's description says.
        expected: u64,
        /// What the server says.
        found: String,
    },
    /// Bytes that are not the ones the hub promised.
    #[error(
        "{file}: what arrived is damaged and was discarded: expected checksum {expected}, found {found}; pull again"
    )]
    Checksum {
        /// The file.
        file: String,
        /// What the repository's description says.
        expected: String,
        /// What was computed.
        found: String,
    },
    /// A request that was answered with an error.
    #[error("{url}: the server answers {status}{}", tell(message))]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server says about it, if anything.
        message: String,
    },
    /// A server that cannot be reached, or does not go on.
    #[error("{url}: {message}")]
    Network {
        /// What was asked for.
        url: String,
        /// What happened.
        message: String,
    },
}

fn set_token(has_token: bool) -> &'static str {
    if has_token {
        "check that HF_TOKEN belongs to an account that has it"
    } else {
        "set HF_TOKEN to a token of an account that has it"
    }
}

fn offer(near: &[String], choices: &[String]) -> String {
    if !near.is_empty() {
        return format!("did you mean {}?", near.join(" or "));
    }
    format!("there is {}", choices.join(", "))
}

fn tell(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
