use proptest::prelude::*;

use super::*;

#[test]
fn encodings_are_found_by_their_names() {
    for encoding in TokenEncoding::ALL {
        assert_eq!(TokenEncoding::from_name(encoding.as_str()), Some(encoding));
    }
    assert_eq!(TokenEncoding::from_name("o200k"), None);
    assert_eq!(TokenEncoding::from_name(""), None);
}

#[test]
fn tokens_are_counted_by_encoding() {
    for (text, o200k, cl100k, estimate) in [
        ("", 0, 0, 0),
        ("Hello, world!", 4, 4, 4),
        ("antidisestablishmentarianism", 6, 6, 7),
        ("12345678", 3, 3, 2),
        ("   \n\n", 1, 1, 2),
        ("Größenwahn", 5, 5, 3),
        ("こんにちは", 1, 1, 4),
        ("don't", 1, 2, 2),
    ] {
        assert_eq!(TokenEncoding::O200kBase.count(text), o200k, "{text:?}");
        assert_eq!(TokenEncoding::Cl100kBase.count(text), cl100k, "{text:?}");
        assert_eq!(TokenEncoding::None.count(text), estimate, "{text:?}");
    }
}

#[test]
fn special_tokens_are_counted_as_plain_text() {
    for encoding in [TokenEncoding::O200kBase, TokenEncoding::Cl100kBase] {
        for special in ["<|endoftext|>", "<|endofprompt|>", "<|im_start|>"] {
            assert!(encoding.count(special) > 1, "{special}");
        }
    }
}

/// Texts that consist of tokens, words, runs of a character, and arbitrary characters.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[a-zA-Z ',.]{0,40}",
        "[\\s]{0,20}",
        "\\PC{0,20}",
        (any::<char>(), 0_usize..300).prop_map(|(char, times)| char.to_string().repeat(times)),
        (0_usize..40).prop_map(|times| "a\u{301}'S\r\n 12345".repeat(times)),
        Just("<|endoftext|>".to_owned()),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn counts_equal_the_number_of_encoded_tokens(text in texts()) {
        for encoding in [TokenEncoding::O200kBase, TokenEncoding::Cl100kBase] {
            let tokens = encoding.tokenizer().unwrap().encode(text.as_str());
            prop_assert_eq!(encoding.count(&text) as usize, tokens.len());
            let decoded = encoding.tokenizer().unwrap().decode(&tokens);
            prop_assert_eq!(decoded.as_deref(), Some(text.as_str()));
        }
    }

    #[test]
    fn a_text_has_at_most_one_token_per_byte(text in texts()) {
        for encoding in TokenEncoding::ALL {
            let tokens = encoding.count(&text) as usize;
            prop_assert!(tokens <= text.len());
            prop_assert_eq!(tokens == 0, text.is_empty());
        }
    }
}
