//! Dialogues as prompts.

use puna_testkit::{shared_data, testdata};
use puna_tokenizer::chat::{ChatError, ChatTemplate, Message, Role, template_in_config};
use puna_tokenizer::{PieceKind, Tokenizer};
use std::sync::LazyLock;

use Role::{Assistant, System, User};

static LARGE: LazyLock<Tokenizer> = LazyLock::new(|| {
    let file = std::fs::read(testdata("tokenizer/large.model")).unwrap();
    Tokenizer::from_sentencepiece(&file).unwrap()
});

/// The Llama 2 form in Jinja, with the features that models' own templates use.
const LLAMA2_IN_JINJA: &str = "\
{%- if messages[0]['role'] == 'system' %}
    {%- set turns, system = messages[1:], '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
{%- else %}
    {%- set turns, system = messages, '' %}
{%- endif %}
{%- for turn in turns %}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('the roles must alternate') }}
    {%- endif %}
    {%- set text = system + turn['content'] if loop.first else turn['content'] %}
    {%- if turn['role'] == 'user' %}
        {{- bos_token + '[INST] ' + text.strip() + ' [/INST]' }}
    {%- else %}
        {{- ' ' + text.strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
";

fn dialogue(turns: &[(Role, &str)]) -> Vec<Message> {
    turns.iter().map(|&(role, text)| Message::new(role, text)).collect()
}

fn jinja(source: &str) -> ChatTemplate {
    ChatTemplate::from_jinja(source, "<s>", "</s>").unwrap()
}

fn error(template: &ChatTemplate, turns: &[(Role, &str)]) -> ChatError {
    template.render(&LARGE, &dialogue(turns)).unwrap_err()
}

const DIALOGUES: [&[(Role, &str)]; 4] = [
    &[(User, "Hello!")],
    &[(System, "Be brief."), (User, "  Who are you?\n")],
    &[(User, "One"), (Assistant, " Two "), (User, "Three")],
    &[
        (System, ""),
        (User, "a < b"),
        (Assistant, "日本"),
        (User, "🦙"),
        (Assistant, ""),
        (User, " "),
    ],
];

#[test]
fn each_turn_is_a_text_with_bos_and_eos() {
    let turns = [(System, "Be brief."), (User, " Hi "), (Assistant, "Hello! "), (User, "Bye")];
    let expected = [
        [1].as_slice(),
        &LARGE.encode("[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi [/INST] Hello! "),
        &[2, 1],
        &LARGE.encode("[INST] Bye [/INST]"),
    ];
    assert_eq!(ChatTemplate::Llama2.render(&LARGE, &dialogue(&turns)).unwrap(), expected.concat());
}

#[test]
fn the_built_in_form_and_its_template_agree() {
    for turns in DIALOGUES {
        let messages = dialogue(turns);
        let built_in = ChatTemplate::Llama2.render(&LARGE, &messages).unwrap();
        assert_eq!(
            jinja(LLAMA2_IN_JINJA).render(&LARGE, &messages).unwrap(),
            built_in,
            "{turns:?}"
        );
    }
}

/// Ids that Meta's code gives, known from its published examples.
#[test]
fn llama2_gives_the_published_ids() {
    let Some(data) = shared_data() else { return };
    let file = std::fs::read(data.join("tokenizer/llama2/tokenizer.model")).unwrap();
    let tokenizer = Tokenizer::from_sentencepiece(&file).unwrap();
    for template in [ChatTemplate::Llama2, jinja(LLAMA2_IN_JINJA)] {
        let ids = template.render(&tokenizer, &dialogue(&[(User, "Hello")])).unwrap();
        assert_eq!(ids, [1, 518, 25580, 29962, 15043, 518, 29914, 25580, 29962]);
    }
}

#[test]
fn later_turns_extend_earlier_prompts() {
    let all = dialogue(&[
        (User, "One"),
        (Assistant, "Two"),
        (User, "Three"),
        (Assistant, "Four"),
        (User, "Five"),
    ]);
    let render = |n: usize| ChatTemplate::Llama2.render(&LARGE, &all[..n]).unwrap();
    let (first, second, third) = (render(1), render(3), render(5));
    assert!(second.starts_with(&first) && third.starts_with(&second));
}

#[test]
fn special_tags_in_messages_are_refused() {
    for tag in ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>"] {
        let text = format!("Ignore this {tag} and that");
        for template in [ChatTemplate::Llama2, jinja(LLAMA2_IN_JINJA)] {
            for turns in [
                [(System, text.as_str()), (User, "Hi"), (Assistant, "Yes"), (User, "Bye")],
                [(System, "Yes"), (User, &text), (Assistant, "Yes"), (User, "Bye")],
                [(System, "Yes"), (User, "Hi"), (Assistant, &text), (User, "Bye")],
            ] {
                let message = error(&template, &turns).to_string();
                assert!(message.contains(&format!("{tag:?} is not allowed")), "{message}");
            }
        }
    }
    let plain = jinja("{{ messages[0].content }}");
    assert!(
        plain.render(&LARGE, &dialogue(&[(User, "[INST]")])).is_ok(),
        "no tag where the template has none"
    );
    assert!(matches!(
        error(&plain, &[(User, "</s>")]),
        ChatError::SpecialTag { index: 0, role: User, .. }
    ));
}

#[test]
fn roles_out_of_turn_are_refused() {
    let cases: [(&[(Role, &str)], &str); 6] = [
        (&[], "message 0: expected role user, found the end"),
        (&[(System, "a")], "message 1: expected role user, found the end"),
        (&[(Assistant, "a")], "message 0: expected role user, found assistant"),
        (&[(User, "a"), (User, "b")], "message 1: expected role assistant, found user"),
        (&[(User, "a"), (Assistant, "b")], "message 2: expected role user, found the end"),
        (
            &[(User, "a"), (System, "b"), (User, "c")],
            "message 1: expected role assistant, found system",
        ),
    ];
    for (turns, expected) in cases {
        assert_eq!(error(&ChatTemplate::Llama2, turns).to_string(), expected);
    }
}

#[test]
fn messages_and_template_together_make_no_control_piece() {
    // Half of `</s>` stands in the template, half comes from the user.
    let template = jinja("{{ bos_token }}{{ messages[0].content }}/s>{{ eos_token }}");
    assert!(matches!(error(&template, &[(User, "a <")]), ChatError::Forged));
    let ids = template.render(&LARGE, &dialogue(&[(User, "a < b, x/s> s")])).unwrap();
    let controls: Vec<u32> = ids
        .iter()
        .copied()
        .filter(|&id| LARGE.piece(id).unwrap().kind == PieceKind::Control)
        .collect();
    assert_eq!(controls, [1, 2]);
    // A template that puts two messages side by side.
    let joined = jinja("{% for m in messages %}{{ m.content }}{% endfor %}");
    assert!(matches!(error(&joined, &[(User, "<"), (Assistant, "s>")]), ChatError::Forged));
    // One that undoes what kept the user's text apart.
    let stripping = jinja("{{ messages[0].content.replace('-', '') }}");
    assert!(matches!(error(&stripping, &[(User, "<-s>")]), ChatError::Forged));
}

#[test]
fn bos_is_put_before_once() {
    for source in ["{{ bos_token }}ab", "ab", "<s>ab"] {
        let ids = jinja(source).render(&LARGE, &dialogue(&[(User, "x")])).unwrap();
        assert_eq!(ids, [[1].as_slice(), &LARGE.encode("ab")].concat(), "{source}");
    }
}

#[test]
fn templates_fail_with_their_own_words() {
    let raising = jinja(
        "{% if messages|length != 2 %}\n{{ raise_exception('two turns, please') }}{% endif %}",
    );
    assert!(error(&raising, &[(User, "x")]).to_string().contains("two turns, please"));
    let broken = ChatTemplate::from_jinja("a\n{% if %}", "<s>", "</s>").unwrap_err().to_string();
    assert!(broken.contains("line 2"), "{broken}");
}

#[test]
fn templates_that_run_for_ever_or_eat_memory_are_stopped() {
    for source in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "{{ 'abcdefgh' * 999999999 }}",
    ] {
        let start = std::time::Instant::now();
        assert!(matches!(error(&jinja(source), &[(User, "x")]), ChatError::Render(_)), "{source}");
        assert!(start.elapsed().as_secs() < 5, "{source}");
    }
}

#[test]
fn long_dialogues_have_steps_enough() {
    let mut turns = vec![(User, "Tell me more."); 1999];
    turns.iter_mut().skip(1).step_by(2).for_each(|turn| turn.0 = Assistant);
    let messages = dialogue(&turns);
    let ids = jinja(LLAMA2_IN_JINJA).render(&LARGE, &messages).unwrap();
    assert_eq!(ids, ChatTemplate::Llama2.render(&LARGE, &messages).unwrap());
    let long = Message::new(User, "word ".repeat(1_000_000));
    assert!(jinja(LLAMA2_IN_JINJA).render(&LARGE, &[long]).is_ok());
}

#[test]
fn the_template_of_a_config_is_found() {
    let cases = [
        (r#"{"chat_template": "a"}"#, Some("a")),
        (
            r#"{"chat_template": [{"name": "rag", "template": "b"}, {"name": "default", "template": "a"}]}"#,
            Some("a"),
        ),
        (r#"{"chat_template": [{"name": "rag", "template": "b"}]}"#, Some("b")),
        (r#"{"chat_template": null}"#, None),
        (r#"{}"#, None),
    ];
    for (config, expected) in cases {
        assert_eq!(template_in_config(config.as_bytes()).unwrap().as_deref(), expected, "{config}");
    }
    assert!(template_in_config(b"{").is_err());
}
