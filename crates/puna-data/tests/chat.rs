//! Records of alignment out of files: every form, and everything that can be wrong with one.

mod common;

use common::Desk;
use puna_data::chat::{
    ChatForm, ChatRecord, OnProblem, PreferenceForm, PreferenceRecord, ProblemKind, Problems,
    RequiredLabels, SafetyLabel, parse_chat, parse_preferences, read_chat, read_preferences,
    read_prompts,
};
use puna_testkit::{shared_data, testdata};
use puna_tokenizer::chat::{Message, Role};

use Role::{Assistant, System, User};

fn dialogue(turns: &[(Role, &str)]) -> Vec<Message> {
    turns.iter().map(|&(role, text)| Message::new(role, text)).collect()
}

fn chat(text: &str, on_problem: OnProblem) -> Result<(Vec<ChatRecord>, Problems), String> {
    parse_chat("f", text.as_bytes(), None, on_problem).map_err(|e| e.to_string())
}

fn pairs(
    text: &str,
    required: RequiredLabels,
    on_problem: OnProblem,
) -> Result<(Vec<PreferenceRecord>, Problems), String> {
    let read = parse_preferences("f", text.as_bytes(), None, required, on_problem);
    read.map_err(|e| e.to_string())
}

#[test]
fn every_form_gives_the_same_dialogue() {
    let expected = dialogue(&[(User, "Hi\n\nthere"), (Assistant, "Hello 🐟 ")]);
    let forms = [
        (
            ChatForm::Messages,
            r#"{"messages":[{"role":"user","content":"Hi\n\nthere"},{"role":"assistant","content":"Hello 🐟 ","name":"x"}]}"#,
        ),
        (
            ChatForm::ShareGpt,
            r#"{"id":7,"conversations":[{"from":"human","value":"Hi\n\nthere"},{"from":"gpt","value":"Hello \ud83d\udc1f "}]}"#,
        ),
        (
            ChatForm::ShareGpt,
            r#"{"conversations":[{"role":"user","content":"Hi\n\nthere"},{"role":"assistant","content":"Hello 🐟 "}]}"#,
        ),
        (ChatForm::Alpaca, r#"{"instruction":" Hi ","input":"there","output":"Hello 🐟 "}"#),
        (ChatForm::Alpaca, r#"{"instruction":"Hi\n\nthere","input":"","output":"Hello 🐟 "}"#),
        (ChatForm::Alpaca, r#"{"instruction":"Hi\n\nthere","input":null,"output":"Hello 🐟 "}"#),
    ];
    for (form, text) in forms {
        for text in [text.to_owned(), format!("\n{text}\r\n\n"), format!(" \n[{text}]\n")] {
            let (records, problems) = chat(&text, OnProblem::Refuse).unwrap();
            assert_eq!(records.len(), 1, "{text}");
            assert_eq!(records[0].messages, expected, "{text}");
            assert_eq!(records[0].source, "f");
            assert_eq!(problems.n_records(), 0);
            let stated = parse_chat("f", text.as_bytes(), Some(form), OnProblem::Refuse).unwrap();
            assert_eq!(stated.0, records);
        }
    }
    let text = r#"{"messages":[{"role":"system","content":""},{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"source":"tales"}"#;
    let record = chat(text, OnProblem::Refuse).unwrap().0.remove(0);
    assert_eq!(record.messages, dialogue(&[(System, ""), (User, "a"), (Assistant, "b")]));
    assert_eq!(record.source, "tales");
}

#[test]
fn a_stated_form_is_the_one_that_is_read() {
    let text = r#"{"instruction":"a","output":"b"}"#;
    let error = parse_chat("f", text.as_bytes(), Some(ChatForm::Messages), OnProblem::Refuse);
    assert_eq!(
        error.unwrap_err().to_string(),
        "f: line 1: expected an array of messages in the field \"messages\", found no such field"
    );
}

#[test]
fn files_are_unpacked_and_lines_counted() {
    let desk = Desk::new();
    let text =
        "\n{\"instruction\":\"a\",\"output\":\"b\"}\n\n{\"instruction\":\"c\",\"output\":\"d\"}";
    for name in ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"] {
        let path = desk.write(name, text);
        let (records, _) = read_chat(&path, None, OnProblem::Refuse).unwrap();
        let found: Vec<(u64, &str)> =
            records.iter().map(|r| (r.line, r.messages[1].content.as_str())).collect();
        assert_eq!(found, [(2, "b"), (4, "d")]);
        assert_eq!(records[0].source, path.display().to_string());
    }
    let path = desk.write("cut.jsonl.gz", "");
    std::fs::write(&path, b"\x1f\x8b\x08").unwrap();
    assert!(read_chat(&path, None, OnProblem::Skip).is_err());
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    const GOOD: &str =
        r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
    let with = |messages: &str| format!("{{\"messages\":{messages}}}");
    let turn = |role: &str, text: &str| format!("{{\"role\":{role},\"content\":{text}}}");
    let turns = |turns: &[(&str, &str)]| {
        let turns: Vec<String> = turns
            .iter()
            .map(|(role, text)| turn(&format!("{role:?}"), &format!("{text:?}")))
            .collect();
        with(&format!("[{}]", turns.join(",")))
    };
    use ProblemKind::{EmptyAnswer, EmptyPrompt, Field, Json, NotText, RoleOrder, UnknownRole};
    let cases: [(String, ProblemKind, &str); 16] = [
        ("{".into(), Json, "expected a JSON object, found none: EOF while parsing"),
        ("3".into(), Json, "expected a JSON object, found a number"),
        (
            "{}".into(),
            Field,
            "expected an array of messages in the field \"messages\", found no such field",
        ),
        (
            with("\"a\""),
            Field,
            "expected an array of messages in the field \"messages\", found a string",
        ),
        (with("[1]"), Field, "expected an object as message 1, found a number"),
        (
            with("[{\"role\":\"user\"}]"),
            Field,
            "expected \"content\" or \"value\" in message 1, found neither",
        ),
        (
            with("[{\"content\":\"a\"}]"),
            Field,
            "expected \"role\" or \"from\" in message 1, found neither",
        ),
        (
            with(&format!("[{}]", turn("\"user\"", "[\"a\"]"))),
            NotText,
            "expected a string as \"content\" of message 1, found an array",
        ),
        (
            turns(&[("user", "a"), ("tool", "b")]),
            UnknownRole,
            "expected system, user (human) or assistant (gpt) as role of message 2, found \"tool\"",
        ),
        (with("[]"), RoleOrder, "expected role user for message 1, found the end"),
        (
            turns(&[("assistant", "a")]),
            RoleOrder,
            "expected role user for message 1, found assistant",
        ),
        (
            turns(&[("user", "a")]),
            RoleOrder,
            "expected role assistant for message 2, found the end",
        ),
        (
            turns(&[("user", "a"), ("assistant", "b"), ("system", "c")]),
            RoleOrder,
            "expected role user for message 3, found system",
        ),
        (
            turns(&[("user", "a"), ("user", "b"), ("assistant", "c")]),
            RoleOrder,
            "expected role assistant for message 2, found user",
        ),
        (
            turns(&[("user", " "), ("assistant", "b")]),
            EmptyPrompt,
            "expected text in message 1 (user), found none",
        ),
        (
            turns(&[("user", "a"), ("assistant", "\n")]),
            EmptyAnswer,
            "expected text in message 2 (assistant), found none",
        ),
    ];
    for (text, kind, expected) in cases {
        let text = format!("{GOOD}\n{text}\n{GOOD}\n{text}");
        let message = chat(&text, OnProblem::Refuse).unwrap_err();
        assert!(message.starts_with(&format!("f: line 2: {expected}")), "{message}");
        let (records, problems) = chat(&text, OnProblem::Skip).unwrap();
        assert_eq!(records.iter().map(|record| record.line).collect::<Vec<_>>(), [1, 3]);
        let found: Vec<_> = problems.iter().collect();
        assert_eq!((found.len(), found[0].0, found[0].1.n), (1, kind, 2));
        assert_eq!(found[0].1.first, message);
        assert_eq!(
            problems.to_string(),
            format!("2 records with {}, first {message}", kind.name())
        );
    }
    let mut bytes = GOOD.as_bytes().to_vec();
    bytes.extend(b"\n{\"messages\":\"\xff\"}");
    let error = parse_chat("f", &bytes, None, OnProblem::Refuse).unwrap_err().to_string();
    assert_eq!(error, "f: line 2: expected UTF-8, found the byte 0xff 13 bytes further on");
    assert_eq!(parse_chat("f", &bytes, None, OnProblem::Skip).unwrap().1.n_records(), 1);
}

#[test]
fn a_file_of_no_form_is_refused_whatever_the_policy() {
    for (text, expected) in [
        (
            "{\"text\":\"a\",\"b\":1}",
            "f: line 1: expected a field \"messages\", \"conversations\", or \"instruction\" and \"output\", \
             found b, text",
        ),
        ("[{}", "f: expected a JSON array, found none: EOF while parsing"),
    ] {
        let message = chat(text, OnProblem::Skip).unwrap_err();
        assert!(message.starts_with(expected), "{message}");
    }
    assert_eq!(chat("\n\n", OnProblem::Refuse).unwrap().0, []);
}

#[test]
fn problems_of_several_files_add_up() {
    let good = "{\"instruction\":\"a\",\"output\":\"b\"}\n";
    let mut all = chat(&format!("{good}{{\n"), OnProblem::Skip).unwrap().1;
    let text = format!("{good}{{\n{{\"instruction\":\"a\",\"output\":\" \"}}");
    all.merge(parse_chat("g", text.as_bytes(), None, OnProblem::Skip).unwrap().1);
    assert_eq!(all.n_records(), 3);
    let told = all.to_string();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("2 records with invalid JSON, first f: line 2: "), "{told}");
    assert_eq!(
        lines[1],
        "1 record with an empty answer, first g: line 3: expected text in message 2 (assistant), found none"
    );
}

#[test]
fn pairs_with_their_labels() {
    let text = "{\"prompt\":[{\"role\":\"user\",\"content\":\"a\"}],\"chosen\":\"b\",\"rejected\":\"c\"}
        {\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\",\"strength\":3,\"safety\":\"chosen_safe\"}
        {\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\",\"strength\":0,\"safety\":\"both_safe\"}
        {\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\",\"strength\":null,\"safety\":\"both_unsafe\"}";
    let (records, _) = pairs(text, RequiredLabels::default(), OnProblem::Refuse).unwrap();
    let found: Vec<_> = records.iter().map(|record| (record.strength, record.safety)).collect();
    use SafetyLabel::{BothSafe, BothUnsafe, ChosenSafe};
    assert_eq!(
        found,
        [
            (None, None),
            (Some(3), Some(ChosenSafe)),
            (Some(0), Some(BothSafe)),
            (None, Some(BothUnsafe))
        ]
    );
    for record in &records {
        assert_eq!(record.prompt, dialogue(&[(User, "a")]));
        assert_eq!((record.chosen.as_str(), record.rejected.as_str()), ("b", "c"));
    }
    let safe = [ChosenSafe, BothSafe, BothUnsafe].map(|l| (l.chosen_safe(), l.rejected_safe()));
    assert_eq!(safe, [(true, false), (true, true), (false, false)]);
}

#[test]
fn what_is_wrong_with_a_pair() {
    const GOOD: &str =
        r#"{"prompt":"a","chosen":"b","rejected":"c","strength":1,"safety":"both_safe"}"#;
    use ProblemKind::{
        BadLabel, EmptyAnswer, EmptyPrompt, EqualAnswers, Field, MissingLabel, NotText, RoleOrder,
        UnsafeChosen,
    };
    let strength = "expected a whole number, 0 to 3, in the field \"strength\", found ";
    let safety = "expected \"chosen_safe\", \"both_safe\" or \"both_unsafe\" in the field \"safety\", found ";
    let cases: [(&str, &str, ProblemKind, String); 14] = [
        ("\"a\"", "[]", RoleOrder, "expected role user for message 1, found the end".into()),
        ("\"a\"", "\"\"", EmptyPrompt, "expected text in message 1 (user), found none".into()),
        (
            "\"prompt\"",
            "\"p\"",
            Field,
            "expected an array of messages in the field \"prompt\", found no such field".into(),
        ),
        ("\"b\"", "\" \"", EmptyAnswer, "expected text as the chosen answer, found none".into()),
        ("\"c\"", "\"\"", EmptyAnswer, "expected text as the rejected answer, found none".into()),
        (
            "\"c\"",
            "\"b\\n\"",
            EqualAnswers,
            "expected two answers that differ, found the same text twice".into(),
        ),
        (
            "\"c\"",
            "3",
            NotText,
            "expected a string in the field \"rejected\", found a number".into(),
        ),
        (
            "\"chosen\"",
            "\"x\"",
            Field,
            "expected a string in the field \"chosen\", found no such field".into(),
        ),
        ("1", "4", BadLabel, format!("{strength}4")),
        ("1", "1.5", BadLabel, format!("{strength}1.5")),
        ("1", "\"better\"", BadLabel, format!("{strength}a string")),
        (
            "1",
            "null",
            MissingLabel,
            "expected a label in the field \"strength\", found none".into(),
        ),
        ("\"both_safe\"", "\"safe\"", BadLabel, format!("{safety}\"safe\"")),
        ("\"both_safe\"", "\"rejected_safe\"", UnsafeChosen, format!("{safety}\"rejected_safe\"")),
    ];
    let required = RequiredLabels { strength: true, safety: true };
    for (from, to, kind, expected) in cases {
        let text = format!("{GOOD}\n{}", GOOD.replacen(from, to, 1));
        let message = pairs(&text, required, OnProblem::Refuse).unwrap_err();
        assert_eq!(message, format!("f: line 2: {expected}"));
        let (records, problems) = pairs(&text, required, OnProblem::Skip).unwrap();
        assert_eq!((records.len(), problems.n_records()), (1, 1));
        assert_eq!(problems.iter().next().unwrap().0, kind);
    }
}

#[test]
fn transcripts_share_all_but_their_last_answer() {
    let line = |chosen: &str, rejected: &str| {
        format!("{{\"chosen\":{chosen:?},\"rejected\":{rejected:?}}}")
    };
    let start = "\n\nHuman: a: b\nc\n\nAssistant: d  \n\nHuman:e";
    let good = line(&format!("{start}\n\nAssistant: f"), &format!("{start}\n\nAssistant:\n\ng"));
    let (records, _) = pairs(&good, RequiredLabels::default(), OnProblem::Refuse).unwrap();
    let prompt = dialogue(&[(User, "a: b\nc"), (Assistant, "d"), (User, "e")]);
    assert_eq!(records[0].prompt, prompt);
    assert_eq!((records[0].chosen.as_str(), records[0].rejected.as_str()), ("f", "g"));

    use ProblemKind::{DifferentPrompts, EmptyAnswer, EqualAnswers, RoleOrder};
    let answered = |text: &str| format!("{start}\n\nAssistant:{text}");
    let cases = [
        (answered("f"), answered("f "), EqualAnswers),
        (answered("f"), answered(""), EmptyAnswer),
        (answered("f"), answered("f").replace("a:", "x:"), DifferentPrompts),
        (answered("f"), answered("f\n\nHuman: g\n\nAssistant: h"), DifferentPrompts),
        (answered("f"), format!("{start}\n\nHuman: g"), RoleOrder),
        (answered("f"), "f".to_owned(), RoleOrder),
        (answered("f"), String::new(), RoleOrder),
        (answered("f\n\nAssistant: g"), answered("f\n\nAssistant: h"), RoleOrder),
    ];
    for (chosen, rejected, kind) in cases {
        let bad = line(&chosen, &rejected);
        let found = pairs(&bad, RequiredLabels::default(), OnProblem::Skip).unwrap();
        assert!(found.0.is_empty(), "{bad}");
        assert_eq!(found.1.iter().map(|(kind, _)| kind).collect::<Vec<_>>(), [kind], "{bad}");
    }
}

#[test]
fn prompts_end_with_the_user() {
    let desk = Desk::new();
    let path = desk.write(
        "p.jsonl",
        "{\"prompt\":\"a\"}\n{\"prompt\":[{\"role\":\"user\",\"content\":\"b\"}],\"is_safety\":true,\"source\":\"s\"}\n\
         {\"prompt\":\"c\",\"is_safety\":1}\n{\"prompt\":[{\"role\":\"assistant\",\"content\":\"b\"}]}\n",
    );
    let (records, problems) = read_prompts(&path, OnProblem::Skip).unwrap();
    let found: Vec<_> =
        records.iter().map(|r| (r.messages[0].content.as_str(), r.is_safety, r.line)).collect();
    assert_eq!(found, [("a", None, 1), ("b", Some(true), 2)]);
    assert_eq!(records[1].source, "s");
    let kinds: Vec<_> = problems.iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [ProblemKind::RoleOrder, ProblemKind::BadLabel]);
    let path = desk.write("q.jsonl", "{\"text\":\"a\"}");
    assert!(read_prompts(&path, OnProblem::Skip).unwrap_err().to_string().ends_with("found text"));
}

#[test]
fn lists_in_columns_of_parquet() {
    let path = testdata("data/messages.parquet");
    let (records, problems) = read_chat(&path, None, OnProblem::Skip).unwrap();
    let expected = [
        (1, dialogue(&[(User, "A fox?"), (Assistant, "Zoë.")])),
        (
            2,
            dialogue(&[
                (System, "Be kind."),
                (User, "3 eggs"),
                (Assistant, "“Hey ho!”\n\nSo it was. 🐟"),
            ]),
        ),
        (4, dialogue(&[(User, "1"), (Assistant, "2"), (User, "3"), (Assistant, "4")])),
    ];
    let found: Vec<_> = records.iter().map(|r| (r.line, r.messages.clone())).collect();
    assert_eq!(found, expected);
    assert_eq!(
        (records[0].source.as_str(), records[1].source.as_str()),
        ("tales", &*path.display().to_string())
    );
    let found: Vec<_> = problems.iter().collect();
    assert_eq!(found.len(), 2);
    assert!(found[0].1.first.ends_with(
        "messages.parquet: row 5: expected an array of messages in the field \"messages\", found null"
    ));
    assert_eq!(found[1].0, ProblemKind::EmptyAnswer);

    let path = testdata("data/preferences.parquet");
    let (records, problems) =
        read_preferences(&path, None, RequiredLabels::default(), OnProblem::Skip).unwrap();
    let found: Vec<_> =
        records.iter().map(|r| (r.chosen.as_str(), r.strength, r.safety, r.line)).collect();
    assert_eq!(
        found,
        [("Once more.", Some(3), Some(SafetyLabel::BothSafe), 1), ("No.", None, None, 3)]
    );
    assert_eq!(problems.iter().next().unwrap().0, ProblemKind::EqualAnswers);
}

/// Bytes of a sound file changed or cut are read or refused, without a panic.
#[test]
fn damaged_parquet_is_refused() {
    let desk = Desk::new();
    let sound = std::fs::read(testdata("data/messages.parquet")).unwrap();
    let mut n_refused = 0;
    for at in (0..sound.len()).step_by(11) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x55;
        let changed = desk.path("a.parquet");
        std::fs::write(&changed, bytes).unwrap();
        n_refused += u32::from(read_chat(&changed, None, OnProblem::Skip).is_err());
        std::fs::write(&changed, &sound[..at]).unwrap();
        assert!(read_chat(&changed, None, OnProblem::Skip).is_err());
    }
    assert!(n_refused > 20, "{n_refused}");
}

/// Counts by a reader in Python.
#[test]
fn published_transcripts_are_read() {
    let Some(data) = shared_data() else { return };
    let path = data.join("chat/preference/hh_harmless_test.jsonl.gz");
    let form = Some(PreferenceForm::Transcripts);
    let (records, problems) =
        read_preferences(&path, form, RequiredLabels::default(), OnProblem::Skip).unwrap();
    assert_eq!(records.len(), 2299);
    let counts: Vec<_> = problems.iter().map(|(kind, found)| (kind, found.n)).collect();
    assert_eq!(
        counts,
        [
            (ProblemKind::RoleOrder, 4),
            (ProblemKind::EmptyAnswer, 4),
            (ProblemKind::DifferentPrompts, 5)
        ]
    );
    let (records, problems) =
        read_chat(&data.join("chat/sft/ms_chitchat.jsonl.zst"), None, OnProblem::Refuse).unwrap();
    assert_eq!((records.len(), problems.n_records()), (9792, 0));
    assert_eq!(records[9791].line, 9792);
}
