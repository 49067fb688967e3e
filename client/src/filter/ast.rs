//! A filter as it was written, before it is known which table it is for.

use super::literal::Number;

/// A filter that was parsed. [`Filter::bind`] makes it fit a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// For errors.
    pub(super) text: String,
    pub(super) expr: Expr,
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    /// At least two, in the order they were written.
    And(Vec<Expr>),
    /// At least two.
    Or(Vec<Expr>),
    Not(Box<Expr>),
    /// `true`, `false` or `null` alone.
    Constant(Option<bool>),
    Test(Test),
}

/// A question about one column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Test {
    pub(super) column: Column,
    pub(super) op: Op,
    /// Where the operator begins.
    pub(super) at: usize,
}

/// A name, with the names of nested fields behind it; each with where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) names: Vec<(String, usize)>,
}

impl Column {
    /// As errors name it.
    pub(super) fn dotted(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(|(name, _)| name.as_str()).collect();
        names.join(".")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    /// A column of truth values alone.
    IsTrue,
    IsNull {
        negated: bool,
    },
    Compare(Comparison, Literal),
    In {
        negated: bool,
        list: Vec<Literal>,
    },
    Like {
        negated: bool,
        pattern: Literal,
    },
    Contains {
        negated: bool,
        value: Literal,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(super) const ALL: [(&'static str, Comparison); 6] = [
        ("=", Self::Equal),
        ("!=", Self::NotEqual),
        ("<", Self::Less),
        ("<=", Self::LessOrEqual),
        (">", Self::Greater),
        (">=", Self::GreaterOrEqual),
    ];
}

/// A value that was written down, and where.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Literal {
    pub(super) value: Value,
    pub(super) at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Number(Number),
    Text(String),
}

impl Value {
    /// As errors name it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a truth value",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
        }
    }
}
