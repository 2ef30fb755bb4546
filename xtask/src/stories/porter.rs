//! Inflections cut off words: steps 1 and 5a of Porter, "An algorithm for suffix stripping", 1980. The steps between cut
//! off suffixes that make other words ("-ness", "-ful"), which a request does not mean.

/// Plurals that no suffix makes.
const IRREGULAR: &[(&str, &str)] = &[
    ("children", "child"),
    ("geese", "goose"),
    ("leaves", "leaf"),
    ("men", "man"),
    ("mice", "mouse"),
    ("thieves", "thief"),
    ("wolves", "wolf"),
    ("women", "woman"),
    ("firemen", "fireman"),
    ("fishermen", "fisherman"),
    ("snowmen", "snowman"),
];

/// The stem of a word in small letters.
pub(super) fn stem(word: &str) -> String {
    if let Some((_, singular)) = IRREGULAR.iter().find(|(plural, _)| *plural == word) {
        return stem(singular);
    }
    let word = word.trim_end_matches("'s").trim_matches('\'');
    if word.len() <= 2 || !word.is_ascii() {
        return word.to_owned();
    }
    let mut word = plural(word);
    if let Some(stem) = word.strip_suffix("eed") {
        if measure(stem) > 0 {
            word.pop();
        }
    } else if let Some(cut) = ["ed", "ing"].iter().find_map(|suffix| word.strip_suffix(suffix))
        && has_vowel(cut)
    {
        word = repaired(cut);
    }
    if let Some(stem) = word.strip_suffix('y')
        && has_vowel(stem)
    {
        word = format!("{stem}i");
    }
    // Step 5a: "dance" as "danced".
    if let Some(stem) = word.strip_suffix('e')
        && (measure(stem) > 1 || measure(stem) == 1 && !ends_short(stem.as_bytes()))
    {
        word.pop();
    }
    word
}

/// Step 1a.
fn plural(word: &str) -> String {
    let cut = match word {
        _ if word.ends_with("sses") || word.ends_with("ies") => 2,
        _ if word.ends_with("ss") => 0,
        _ if word.ends_with('s') => 1,
        _ => 0,
    };
    word[..word.len() - cut].to_owned()
}

/// What step 1b does after it cut off "ed" or "ing".
fn repaired(cut: &str) -> String {
    let bytes = cut.as_bytes();
    let n = bytes.len();
    let is_double = n >= 2 && bytes[n - 1] == bytes[n - 2] && is_consonant(bytes, n - 1);
    if cut.ends_with("at") || cut.ends_with("bl") || cut.ends_with("iz") {
        format!("{cut}e")
    } else if is_double && !matches!(bytes[n - 1], b'l' | b's' | b'z') {
        cut[..n - 1].to_owned()
    } else if measure(cut) == 1 && ends_short(bytes) {
        format!("{cut}e")
    } else {
        cut.to_owned()
    }
}

fn is_consonant(word: &[u8], i: usize) -> bool {
    match word[i] {
        b'a' | b'e' | b'i' | b'o' | b'u' => false,
        b'y' => i == 0 || !is_consonant(word, i - 1),
        _ => true,
    }
}

fn has_vowel(word: &str) -> bool {
    (0..word.len()).any(|i| !is_consonant(word.as_bytes(), i))
}

/// Porter's m: how often a vowel is followed by a consonant.
fn measure(word: &str) -> usize {
    let bytes = word.as_bytes();
    (1..bytes.len()).filter(|&i| is_consonant(bytes, i) && !is_consonant(bytes, i - 1)).count()
}

/// Consonant, vowel, consonant other than w, x and y.
fn ends_short(word: &[u8]) -> bool {
    let n = word.len();
    n >= 3
        && is_consonant(word, n - 3)
        && !is_consonant(word, n - 2)
        && is_consonant(word, n - 1)
        && !matches!(word[n - 1], b'w' | b'x' | b'y')
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn inflections_have_the_stem_of_their_word() {
        // Porter's own examples of both steps, then ours.
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("caress", "caress"),
            ("cats", "cat"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("bled", "bled"),
            ("motoring", "motor"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("troubled", "troubl"),
            ("sized", "size"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("hissing", "hiss"),
            ("fizzed", "fizz"),
            ("failing", "fail"),
            ("filing", "file"),
            ("happy", "happi"),
            ("probate", "probat"),
            ("rate", "rate"),
            ("sky", "sky"),
            ("mice", "mous"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
        for (a, b) in
            [("rabbit's", "rabbits"), ("danced", "dance"), ("wolves", "wolf"), ("parties", "party")]
        {
            assert_eq!(stem(a), stem(b));
        }
    }
}
