//! The words of a filter.

use super::error::{FilterError, FilterErrorKind};
use super::literal::Number;

/// One word, and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) word: Word,
    /// Its first byte.
    pub(super) at: usize,
    /// The byte behind its last.
    pub(super) end: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// A name without quotes: a column, or a keyword.
    Name(String),
    /// A name in double quotes: always a column.
    Quoted(String),
    Text(String),
    Number(Number),
    /// One of `= != < <= > >= ( ) , . -`; `<>` reads as `!=`.
    Sign(&'static str),
}

/// Longer ones first.
const SIGNS: [(&str, &str); 12] = [
    ("!=", "!="),
    ("<>", "!="),
    ("<=", "<="),
    (">=", ">="),
    ("=", "="),
    ("<", "<"),
    (">", ">"),
    ("(", "("),
    (")", ")"),
    (",", ","),
    (".", "."),
    ("-", "-"),
];

/// All words of `text`, in order.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = rest(text, at).chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (word, len) = word(text, at, first)?;
        let end = at + len;
        found.push(Token { word, at, end });
        at = end;
    }
    Ok(found)
}

fn rest(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

/// The word that begins at `at`, and its length in bytes, which is never 0.
fn word(text: &str, at: usize, first: char) -> Result<(Word, usize), FilterError> {
    let here = rest(text, at);
    if is_name_start(first) {
        let name = take(here, |c| is_name_start(c) || c.is_ascii_digit());
        return Ok((Word::Name(name.to_owned()), name.len()));
    }
    if first.is_ascii_digit() {
        return number(text, at);
    }
    if first == '\'' || first == '"' {
        let (content, len) = quoted(text, at, first)?;
        let word = if first == '"' {
            Word::Quoted(content)
        } else {
            Word::Text(content)
        };
        return Ok((word, len));
    }
    if let Some((written, sign)) = SIGNS.iter().find(|(written, _)| here.starts_with(written)) {
        return Ok((Word::Sign(sign), written.len()));
    }
    let hint = match first {
        '!' => "; unequal is !=, and the opposite of a condition is \"not ...\"",
        '&' => "; write \"and\"",
        '|' => "; write \"or\"",
        '`' => "; names stand in double quotes",
        '*' => "; patterns are text, as in like 'a%'",
        _ => "",
    };
    let kind = FilterErrorKind::Character { found: first, hint };
    Err(FilterError::new(kind, text, at))
}

fn is_name_start(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn take(text: &str, accept: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c| !accept(c)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// `12` or `12.5`. A name may not follow at once: `12abc` is a mistake, not two words.
fn number(text: &str, at: usize) -> Result<(Word, usize), FilterError> {
    let here = rest(text, at);
    let digits = |from: usize| take(rest(here, from), |c| c.is_ascii_digit()).len();
    let mut len = digits(0);
    if rest(here, len).starts_with('.') {
        let fraction = digits(len + 1);
        if fraction > 0 {
            len += 1 + fraction;
        }
    }
    if rest(here, len).chars().next().is_some_and(is_name_start) {
        let expected = "a space after the number, or quotes around text".to_owned();
        let kind = FilterErrorKind::Expected { expected };
        return Err(FilterError::new(kind, text, at + len));
    }
    let number = Number::new(here.get(..len).unwrap_or_default());
    Ok((Word::Number(number), len))
}

/// What stands between quotes, in which two quotes are one.
fn quoted(text: &str, at: usize, quote: char) -> Result<(String, usize), FilterError> {
    let mut content = String::new();
    let mut chars = rest(text, at).char_indices().skip(1).peekable();
    while let Some((offset, c)) = chars.next() {
        if c != quote {
            content.push(c);
        } else if chars.peek().is_some_and(|&(_, next)| next == quote) {
            chars.next();
            content.push(quote);
        } else {
            return Ok((content, offset + 1));
        }
    }
    let what = if quote == '"' { "a name" } else { "text" };
    let kind = FilterErrorKind::Unclosed { what, quote };
    Err(FilterError::new(kind, text, at))
}
