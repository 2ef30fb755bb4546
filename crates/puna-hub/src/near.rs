//! "Did you mean".

/// Those of `known` that `typed` was probably meant to be, nearest first; case is ignored.
pub fn near_matches<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let typed = typed.to_lowercase();
    let n_chars = typed.chars().count();
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .map(|name| (edit_distance(&typed, &name.to_lowercase()), name))
        .filter(|&(distance, name)| distance <= 1 + n_chars.max(name.chars().count()) / 5)
        .collect();
    near.sort();
    near.into_iter().map(|(_, name)| name).collect()
}

/// How many characters must be inserted, removed or replaced to turn `a` into `b` (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_and_matches() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        let known = ["stories260K", "chat"];
        assert_eq!(near_matches("stories260", known), ["stories260K"]);
        assert_eq!(near_matches("Stories-260k", known), ["stories260K"]);
        assert_eq!(near_matches("llama", known), [""; 0]);
    }
}
