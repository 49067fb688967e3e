//! Patterns: `%` is any text, `_` any one character, a backslash takes the meaning from the next of those three.
//!
//! A matcher of our own behind the plain kinds, and not regular expressions: it is built at no cost, for a pattern of any
//! length, and its worst case is the product of the two lengths.

/// A pattern, by what it takes to match it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pattern {
    /// No wildcard.
    Is(String),
    /// `text%`
    StartsWith(String),
    /// `%text`
    EndsWith(String),
    /// `%text%`
    Contains(String),
    /// Anything else.
    Pieces(Vec<Piece>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Piece {
    Any,
    One,
    Exactly(char),
}

impl Pattern {
    /// `None`: a backslash before something else than `%`, `_` and backslash.
    pub(super) fn new(text: &str) -> Option<Self> {
        let mut pieces = Vec::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            pieces.push(match c {
                '%' => Piece::Any,
                '_' => Piece::One,
                '\\' => match chars.next()? {
                    escaped @ ('%' | '_' | '\\') => Piece::Exactly(escaped),
                    _ => return None,
                },
                c => Piece::Exactly(c),
            });
        }
        // Two wildcards for any text are one.
        pieces.dedup_by(|a, b| *a == Piece::Any && *b == Piece::Any);
        let (starts, ends) = (
            pieces.first() == Some(&Piece::Any),
            pieces.last() == Some(&Piece::Any),
        );
        let inner = pieces
            .get(usize::from(starts)..pieces.len().saturating_sub(usize::from(ends)))
            .unwrap_or_default();
        Some(match (literal(inner), starts, ends) {
            (Some(text), false, false) => Self::Is(text),
            (Some(text), false, true) => Self::StartsWith(text),
            (Some(text), true, false) => Self::EndsWith(text),
            (Some(text), true, true) => Self::Contains(text),
            (None, ..) => Self::Pieces(pieces),
        })
    }

    /// What all texts that match begin with.
    pub(super) fn prefix(&self) -> String {
        match self {
            Self::Is(text) | Self::StartsWith(text) => text.clone(),
            Self::EndsWith(_) | Self::Contains(_) => String::new(),
            Self::Pieces(pieces) => {
                let fixed = pieces.iter().map_while(|piece| match piece {
                    Piece::Exactly(c) => Some(*c),
                    Piece::Any | Piece::One => None,
                });
                fixed.collect()
            }
        }
    }
}

/// The text of pieces without wildcards.
fn literal(pieces: &[Piece]) -> Option<String> {
    let chars = pieces.iter().map(|piece| match piece {
        Piece::Exactly(c) => Some(*c),
        Piece::Any | Piece::One => None,
    });
    chars.collect()
}

/// Does the whole text match? Only the last "any text" is ever tried anew: what an earlier one took stands.
pub(super) fn matches(pieces: &[Piece], text: &str) -> bool {
    let (mut piece, mut rest) = (0, text.chars());
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let mut ahead = rest.clone();
        let c = ahead.next();
        match (pieces.get(piece), c) {
            (Some(Piece::Any), _) => {
                retry = Some((piece, rest.clone()));
                piece += 1;
                continue;
            }
            (None, None) => return true,
            (Some(Piece::One), Some(_)) => {
                piece += 1;
                rest = ahead;
                continue;
            }
            (Some(Piece::Exactly(wanted)), Some(c)) if *wanted == c => {
                piece += 1;
                rest = ahead;
                continue;
            }
            _ => {}
        }
        // "Any text" takes one character more.
        let Some((any, from)) = &mut retry else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        piece = *any + 1;
        rest = from.clone();
    }
}
