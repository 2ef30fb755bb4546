//! What the tensor names of all forms have in common: a layer's index, a dot, a suffix.

use puna_core::{LayerWeight, WeightId};

/// The suffix that a form's table gives a layer's tensor.
pub(crate) fn suffix(
    table: &[(LayerWeight, &'static str); 9],
    weight: LayerWeight,
) -> &'static str {
    let entry = table.iter().find(|(w, _)| *w == weight);
    entry.expect("the table has every tensor of a layer").1
}

/// The tensor of `INDEX.SUFFIX`.
pub(crate) fn layer(table: &[(LayerWeight, &'static str); 9], rest: &str) -> Option<WeightId> {
    let (idx, rest) = rest.split_once('.')?;
    let &(weight, _) = table.iter().find(|(_, suffix)| *suffix == rest)?;
    Some(WeightId::Layer(index(idx)?, weight))
}

/// A layer index in plain decimal, without sign or leading zeros, so that no two names mean one tensor.
fn index(text: &str) -> Option<usize> {
    let idx: usize = text.parse().ok()?;
    (idx.to_string() == text).then_some(idx)
}

/// Asserts that every tensor's name leads back to it.
#[cfg(test)]
pub(crate) fn check(name: fn(WeightId) -> String, id: fn(&str) -> Option<WeightId>) {
    let mut all = vec![WeightId::TokEmbeddings, WeightId::Norm, WeightId::Output];
    for idx in [0, 9, 10, 79] {
        all.extend(LayerWeight::ALL.map(|weight| WeightId::Layer(idx, weight)));
    }
    for weight in all {
        assert_eq!(id(&name(weight)), Some(weight));
    }
    assert_eq!(id("no such tensor"), None);
}
