//! The server as a function: requests go in, responses come out, without a port. The model is the built-in one.

mod access;
mod chat;
mod common;
mod completions;
mod embeddings;
mod faults;
mod forms;
mod others;
mod slow;
