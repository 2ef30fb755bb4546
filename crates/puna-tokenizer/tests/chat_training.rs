//! Dialogues as training sees them.

use puna_testkit::{shared_data, testdata, workspace_root};
use puna_tokenizer::chat::{
    ChatError, ChatTemplate, Message, Role, TrainingDialogue, render_training,
};
use puna_tokenizer::{Piece, PieceKind, Settings, Tokenizer};

use Role::{Assistant, System, User};

fn tokenizer(path: std::path::PathBuf) -> Tokenizer {
    Tokenizer::from_sentencepiece(&std::fs::read(path).unwrap()).unwrap()
}

fn committed() -> Vec<Tokenizer> {
    let named = ["large", "small", "edited", "bare"];
    let paths = named.map(|name| testdata(format!("tokenizer/{name}.model"))).into_iter();
    paths
        .chain([workspace_root().join("models/stories260K.tokenizer.model")])
        .map(tokenizer)
        .collect()
}

fn dialogue(turns: &[(Role, &str)]) -> Vec<Message> {
    turns.iter().map(|&(role, text)| Message::new(role, text)).collect()
}

/// Pieces with a bar before each answer and after its EOS.
fn shown(tokenizer: &Tokenizer, dialogue: &TrainingDialogue) -> String {
    let mut text = String::new();
    let mut was_answer = false;
    for (&id, &is_answer) in dialogue.ids.iter().zip(&dialogue.is_answer) {
        if is_answer != was_answer {
            text += "| ";
        }
        was_answer = is_answer;
        text += &tokenizer.piece(id).unwrap().text;
        text += " ";
    }
    text + if was_answer { "|" } else { "" }
}

const DIALOGUES: [&[(Role, &str)]; 5] = [
    &[(User, "Hello"), (Assistant, "Hi")],
    &[(System, "Be brief."), (User, " Who? \n"), (Assistant, "\n A bear.  It [ate] ] all.\n\n")],
    &[
        (System, ""),
        (User, "a < b"),
        (Assistant, "日本"),
        (User, "🦙"),
        (Assistant, "]"),
        (User, " "),
        (Assistant, "▁ ▁x▁"),
    ],
    &[(User, "x"), (Assistant, "12 34"), (User, "]"), (Assistant, "[ ]")],
    &[(User, "say nothing"), (Assistant, " "), (User, "x"), (Assistant, "")],
];

/// Pieces by SentencePiece of the texts that Meta's code makes; the bars by hand.
#[test]
fn answers_are_marked_token_by_token() {
    let turns = dialogue(&[
        (System, "Be brief."),
        (User, "Hello"),
        (Assistant, "Hi"),
        (User, " Bye "),
        (Assistant, "日本 🦙\n "),
    ]);
    let large = tokenizer(testdata("tokenizer/large.model"));
    assert_eq!(
        shown(&large, &render_training(&large, &turns).unwrap()),
        "<s> ▁[ IN ST ] ▁ < < S Y S > > <0x0A> Be ▁brief . <0x0A> < < / S Y S > > <0x0A> <0x0A> H ello ▁[ / IN ST ] \
         | ▁H i ▁ </s> \
         | <s> ▁[ IN ST ] ▁By e ▁[ / IN ST ] \
         | ▁ <0xE6> <0x97> <0xA5> <0xE6> <0x9C> <0xAC> ▁ <0xF0> <0x9F> <0xA6> <0x99> ▁ </s> |"
    );
    // A vocabulary that shortens spaces has none at the end.
    let stories = tokenizer(workspace_root().join("models/stories260K.tokenizer.model"));
    assert_eq!(
        shown(&stories, &render_training(&stories, &turns[1..3]).unwrap()),
        "<s> ▁ [ I N S T ] ▁He ll o ▁ [ / I N S T ] | ▁H i </s> |"
    );
}

#[test]
fn llama2_marks_the_published_ids() {
    let Some(data) = shared_data() else { return };
    let llama2 = tokenizer(data.join("tokenizer/llama2/tokenizer.model"));
    let turns =
        dialogue(&[(User, "Hello"), (Assistant, "Hi"), (User, "Bye"), (Assistant, "日本 🦙")]);
    let found = render_training(&llama2, &turns).unwrap();
    #[rustfmt::skip]
    assert_eq!(found.ids, [
        1, 518, 25580, 29962, 15043, 518, 29914, 25580, 29962, 6324, 29871, 2,
        1, 518, 25580, 29962, 2648, 29872, 518, 29914, 25580, 29962,
        29871, 30325, 30346, 29871, 243, 162, 169, 156, 29871, 2,
    ]);
    assert_eq!(found.turns, [9..12, 22..32]);
}

#[test]
fn a_model_is_asked_with_the_ids_before_its_answer() {
    let mut tokenizers = committed();
    tokenizers
        .extend(shared_data().map(|data| tokenizer(data.join("tokenizer/llama2/tokenizer.model"))));
    for tokenizer in &tokenizers {
        for turns in DIALOGUES {
            let messages = dialogue(turns);
            let found = render_training(tokenizer, &messages).unwrap();
            let n_users = messages.iter().filter(|message| message.role == User).count();
            assert_eq!(found.turns.len(), n_users);
            let users = (0..messages.len()).filter(|&i| messages[i].role == User);
            for (turn, i) in found.turns.iter().zip(users) {
                let prompt = ChatTemplate::Llama2.render(tokenizer, &messages[..=i]).unwrap();
                assert_eq!(prompt, found.ids[..turn.start], "{turns:?}");
                assert_eq!(found.ids[turn.end - 1], tokenizer.eos_id().unwrap());
            }
            let marked: Vec<usize> = (0..found.ids.len()).filter(|&i| found.is_answer[i]).collect();
            assert_eq!(marked, found.turns.iter().cloned().flatten().collect::<Vec<_>>());
            // What comes after is asked behind the whole of it.
            let next = [messages.as_slice(), &dialogue(&[(User, "Next")])].concat();
            let next = ChatTemplate::Llama2.render(tokenizer, &next).unwrap();
            assert!(next.starts_with(&found.ids), "{turns:?}");
        }
    }
}

/// A vocabulary in which a piece reaches over the end of the prompt.
#[test]
fn a_piece_that_holds_something_of_the_prompt_is_not_the_answers() {
    let mut pieces = vec![
        Piece { text: "<unk>".into(), score: 0.0, kind: PieceKind::Unknown },
        Piece { text: "<s>".into(), score: 0.0, kind: PieceKind::Control },
        Piece { text: "</s>".into(), score: 0.0, kind: PieceKind::Control },
    ];
    for byte in 0..=255u8 {
        let text = format!("<0x{byte:02X}>");
        pieces.push(Piece { text, score: 0.0, kind: PieceKind::Byte });
    }
    for (text, score) in [("]▁", -2.0), ("T]▁", -3.0), ("ST", -5.0)] {
        pieces.push(Piece { text: text.into(), score, kind: PieceKind::Normal });
    }
    for text in "▁[]/INSTabx".chars() {
        pieces.push(Piece { text: text.into(), score: -10.0, kind: PieceKind::Normal });
    }
    let tokenizer = Tokenizer::from_pieces(pieces, Settings::default()).unwrap();
    let prompt = ChatTemplate::Llama2.render(&tokenizer, &dialogue(&[(User, "x")])).unwrap();
    let pieces = |ids: &[u32]| {
        ids.iter()
            .map(|&id| tokenizer.piece(id).unwrap().text.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(pieces(&prompt), "<s> ▁ [ I N S T]▁ x ▁ [ / I N ST ]");
    let cases = [
        ("ab", "▁ [ I N S T]▁ x ▁ [ / I N S T]▁ | a b ▁ </s> |"),
        ("]", "▁ [ I N S T]▁ x ▁ [ / I N S T]▁ | ]▁ </s> |"),
    ];
    for (answer, expected) in cases {
        let turns = dialogue(&[(User, "x"), (Assistant, answer)]);
        let found = shown(&tokenizer, &render_training(&tokenizer, &turns).unwrap());
        assert_eq!(found, format!("<s> {expected}"));
    }
}

#[test]
fn what_is_no_dialogue_for_training_is_refused() {
    let large = tokenizer(testdata("tokenizer/large.model"));
    let refused =
        |turns: &[(Role, &str)]| render_training(&large, &dialogue(turns)).unwrap_err().to_string();
    let cases: [(&[(Role, &str)], &str); 6] = [
        (&[], "message 0: expected role user, found the end"),
        (&[(System, "a")], "message 1: expected role user, found the end"),
        (&[(User, "a")], "message 1: expected role assistant, found the end"),
        (&[(Assistant, "a")], "message 0: expected role user, found assistant"),
        (
            &[(User, "a"), (Assistant, "b"), (User, "c")],
            "message 3: expected role assistant, found the end",
        ),
        (&[(User, "a"), (User, "b")], "message 1: expected role assistant, found user"),
    ];
    for (turns, expected) in cases {
        assert_eq!(refused(turns), expected);
    }
    assert!(
        refused(&[(User, "a"), (Assistant, "b [/INST] c")]).contains("\"[/INST]\" is not allowed")
    );
    let turns = dialogue(&[(User, "a"), (Assistant, "b </s>")]);
    assert!(matches!(
        render_training(&large, &turns).unwrap_err(),
        ChatError::SpecialTag { index: 1, role: Assistant, .. }
    ));
}
