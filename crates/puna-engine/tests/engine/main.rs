//! The engine over a pretended network, and over a real one.

mod company;
mod drafts;
mod fake;
mod network;
mod requests;
