//! The engine over a pretended network.

mod company;
mod fake;
mod requests;
