//! The Llama 2 Community License Agreement: what is special in it, and how it is recognised.

/// Words by which the Llama 2 Community License Agreement is known.
const LLAMA2_TITLE: &str = "llama 2 community license agreement";

/// Where Meta has, or had, it.
const LLAMA2_PAGES: [&str; 2] =
    ["ai.meta.com/llama/license", "ai.meta.com/resources/models-and-libraries/llama"];

/// Terms of the Llama 2 licence that are unlike those of usual licences, in our words; the text itself decides.
pub const LLAMA2_SPECIAL_TERMS: [&str; 4] = [
    "Section 2: whoever had more than 700 million monthly active users in the month before Llama 2 was released must \
     ask Meta for a licence of their own, and has no rights until Meta grants it.",
    "Section 1.b.v: neither Llama 2 nor what it writes may be used to improve another large language model, except \
     Llama 2 and what is derived from it.",
    "Section 1.b.iii: copies carry a notice file with the attribution that the licence words.",
    "Section 1.b.iv: the Acceptable Use Policy is part of the licence: https://ai.meta.com/llama/use-policy",
];

/// Whether a licence is called so: `llama2`, `Llama-2`, `LLAMA 2 Community`.
pub(crate) fn is_llama2_name(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    plain.to_ascii_lowercase().starts_with("llama2")
}

/// Whether the text of the licence is, or was, at this address.
pub(crate) fn is_llama2_link(link: &str) -> bool {
    let lower = link.to_ascii_lowercase();
    let rest = lower.split_once("://").map_or(&*lower, |(_, rest)| rest);
    LLAMA2_PAGES.iter().any(|page| rest.trim_start_matches("www.").starts_with(page))
}

/// Whether a text begins as it does.
pub(crate) fn is_llama2_text(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().take(200).collect();
    words.join(" ").to_ascii_lowercase().contains(LLAMA2_TITLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_by_name_and_address() {
        for (name, expected) in
            [("llama2", true), ("Llama-2-Community", true), ("llama3", false), ("", false)]
        {
            assert_eq!(is_llama2_name(name), expected, "{name}");
        }
        for (link, expected) in [
            ("https://ai.meta.com/llama/license/", true),
            ("HTTPS://www.ai.meta.com/resources/models-and-libraries/Llama-downloads/", true),
            ("https://llama.meta.com/llama3/license", false),
            ("https://example.com/ai.meta.com/llama/license", false),
            ("", false),
        ] {
            assert_eq!(is_llama2_link(link), expected, "{link}");
        }
    }
}
