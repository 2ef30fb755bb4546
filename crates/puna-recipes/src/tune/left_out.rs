//! Records that are left out of training, which is never done in silence.

use std::collections::BTreeMap;

use puna_data::chat::Problems;

/// By what is wrong with them in which file: how many, and the first of them, by its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeftOut(BTreeMap<(String, &'static str), (u64, String)>);

impl LeftOut {
    /// What was left out as a file was read.
    pub(crate) fn add_problems(&mut self, file: &str, problems: &Problems) {
        for (kind, found) in problems.iter() {
            self.add_n(file, kind.name(), found.n, || found.first.clone());
        }
    }

    /// One record more, of a line of a file.
    pub(crate) fn add(&mut self, file: &str, line: u64, kind: &'static str, detail: &str) {
        self.add_n(file, kind, 1, || format!("{file}: line {line}: {detail}"));
    }

    fn add_n(&mut self, file: &str, kind: &'static str, n: u64, first: impl FnOnce() -> String) {
        self.0.entry((file.to_owned(), kind)).or_insert_with(|| (0, first())).0 += n;
    }

    /// A line for each kind in each file.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .map(|((_, kind), (n, first))| format!("{LEFT_OUT:12}{n}: {kind}, first {first}"))
    }
}

/// What such a line begins with.
const LEFT_OUT: &str = "left out";

/// Of the lines of a plan those on what is left out, for a log.
pub(crate) fn left_out(plan: &[String]) -> impl Iterator<Item = String> {
    let told = plan.iter().filter_map(|line| line.strip_prefix(LEFT_OUT));
    told.map(|rest| format!("{LEFT_OUT} {}", rest.trim_start()))
}
