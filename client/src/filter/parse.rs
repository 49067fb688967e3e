//! Text into a [`Filter`]: a descent, one function for each rule of docs/filter.md, of bounded depth (Q1).

use super::ast::{Column, Comparison, Expr, Filter, Literal, Op, Test, Value};
use super::error::{FilterError, FilterErrorKind};
use super::token::{Token, Word, tokens};
use super::{MAX_BYTES, MAX_DEPTH};

/// Words that are no column unless they are quoted.
const KEYWORDS: [&str; 10] = [
    "and", "or", "not", "in", "like", "contains", "is", "null", "true", "false",
];

impl Filter {
    /// Parses a filter. docs/filter.md has the grammar.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place. Any text may be given: there is no panic, and the work is
    /// linear in its length (Q1).
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_BYTES {
            let bytes = text.len();
            let start: String = text.chars().take(100).collect();
            return Err(FilterError::new(
                FilterErrorKind::TooLong { bytes },
                &start,
                0,
            ));
        }
        let mut parser = Parser {
            text,
            tokens: tokens(text)?,
            next: 0,
        };
        let expr = parser.or(0)?;
        if parser.peek().is_some() {
            return Err(parser.expected("\"and\", \"or\" or the end of the filter"));
        }
        Ok(Self {
            text: text.to_owned(),
            expr,
        })
    }
}

impl std::str::FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    /// Where the next word begins.
    fn at(&self) -> usize {
        self.peek().map_or(self.text.len(), |token| token.at)
    }

    fn expected(&self, what: &str) -> FilterError {
        let expected = what.to_owned();
        FilterError::new(FilterErrorKind::Expected { expected }, self.text, self.at())
    }

    fn is_keyword(&self, keyword: &str, ahead: usize) -> bool {
        let token = self.tokens.get(self.next + ahead);
        matches!(token, Some(Token { word: Word::Name(name), .. }) if name.eq_ignore_ascii_case(keyword))
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(keyword, 0);
        self.next += usize::from(found);
        found
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found =
            matches!(self.peek(), Some(Token { word: Word::Sign(found), .. }) if *found == sign);
        self.next += usize::from(found);
        found
    }

    /// `or = and { "or" and }`
    fn or(&mut self, depth: usize) -> Result<Expr, FilterError> {
        self.chain("or", depth, Self::and, Expr::Or)
    }

    /// `and = not { "and" not }`
    fn and(&mut self, depth: usize) -> Result<Expr, FilterError> {
        self.chain("and", depth, Self::not, Expr::And)
    }

    fn chain(
        &mut self,
        keyword: &str,
        depth: usize,
        item: fn(&mut Self, usize) -> Result<Expr, FilterError>,
        whole: fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, FilterError> {
        let first = item(self, depth)?;
        if !self.is_keyword(keyword, 0) {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.take_keyword(keyword) {
            items.push(item(self, depth)?);
        }
        Ok(whole(items))
    }

    /// `not = "not" not | condition`
    fn not(&mut self, depth: usize) -> Result<Expr, FilterError> {
        if depth > MAX_DEPTH {
            return Err(FilterError::new(
                FilterErrorKind::TooDeep,
                self.text,
                self.at(),
            ));
        }
        if self.take_keyword("not") {
            return Ok(Expr::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.take_sign("(") {
            let inner = self.or(depth + 1)?;
            if !self.take_sign(")") {
                return Err(self.expected("\"and\", \"or\" or \")\""));
            }
            return Ok(inner);
        }
        for (keyword, value) in [("true", Some(true)), ("false", Some(false)), ("null", None)] {
            if self.take_keyword(keyword) {
                return Ok(Expr::Constant(value));
            }
        }
        self.test().map(Expr::Test)
    }

    /// `test = column [ operator ]`
    fn test(&mut self) -> Result<Test, FilterError> {
        let column = self.column()?;
        let at = self.at();
        let op = self.op()?;
        Ok(Test { column, op, at })
    }

    /// `column = name { "." name }`
    fn column(&mut self) -> Result<Column, FilterError> {
        let mut names = vec![self.name("the name of a column, \"not\" or \"(\"")?];
        while self.take_sign(".") {
            names.push(self.name("the name of a field behind the dot")?);
        }
        Ok(Column { names })
    }

    fn name(&mut self, expected: &str) -> Result<(String, usize), FilterError> {
        let name = match self.peek() {
            Some(Token {
                word: Word::Quoted(name),
                at,
                ..
            }) => (name.clone(), *at),
            Some(Token {
                word: Word::Name(name),
                at,
                ..
            }) if !is_keyword(name) => (name.clone(), *at),
            Some(Token {
                word: Word::Name(name),
                ..
            }) => {
                let expected = format!(
                    "{expected}; {name:?} is a keyword, and as a name stands in double quotes"
                );
                return Err(self.expected(&expected));
            }
            Some(Token {
                word: Word::Text(_) | Word::Number(_),
                ..
            }) => {
                let expected = format!("{expected}; values stand on the right of an operator");
                return Err(self.expected(&expected));
            }
            _ => return Err(self.expected(expected)),
        };
        self.next += 1;
        Ok(name)
    }

    fn op(&mut self) -> Result<Op, FilterError> {
        for (sign, comparison) in Comparison::ALL {
            if self.take_sign(sign) {
                return Ok(Op::Compare(comparison, self.literal()?));
            }
        }
        if self.take_keyword("is") {
            let negated = self.take_keyword("not");
            if !self.take_keyword("null") {
                let expected = if negated {
                    "\"null\""
                } else {
                    "\"null\" or \"not null\""
                };
                return Err(self.expected(expected));
            }
            return Ok(Op::IsNull { negated });
        }
        let negated = self.take_keyword("not");
        if self.take_keyword("in") {
            let list = self.list()?;
            return Ok(Op::In { negated, list });
        }
        if self.take_keyword("like") {
            let pattern = self.literal()?;
            return Ok(Op::Like { negated, pattern });
        }
        if self.take_keyword("contains") {
            let value = self.literal()?;
            return Ok(Op::Contains { negated, value });
        }
        if negated {
            return Err(self.expected("\"in\", \"like\" or \"contains\""));
        }
        // A column of truth values may stand alone.
        if self.peek().is_none()
            || self.is_keyword("and", 0)
            || self.is_keyword("or", 0)
            || matches!(
                self.peek(),
                Some(Token {
                    word: Word::Sign(")"),
                    ..
                })
            )
        {
            return Ok(Op::IsTrue);
        }
        Err(self.expected("= != < <= > >=, \"in\", \"like\", \"contains\" or \"is\""))
    }

    /// `list = "(" literal { "," literal } ")"`
    fn list(&mut self) -> Result<Vec<Literal>, FilterError> {
        if !self.take_sign("(") {
            return Err(self.expected("\"(\" and values, as in ('a', 'b')"));
        }
        let mut list = vec![self.literal()?];
        while self.take_sign(",") {
            list.push(self.literal()?);
        }
        if !self.take_sign(")") {
            return Err(self.expected("\",\" or \")\""));
        }
        Ok(list)
    }

    fn literal(&mut self) -> Result<Literal, FilterError> {
        const EXPECTED: &str = "a value: 'text', a number, true, false or null";
        let at = self.at();
        let is_negative = self.take_sign("-");
        let value = match self.peek().map(|token| &token.word) {
            Some(Word::Number(number)) if is_negative => Value::Number(number.negative()),
            _ if is_negative => return Err(self.expected("a number behind the minus")),
            Some(Word::Number(number)) => Value::Number(number.clone()),
            Some(Word::Text(text)) => Value::Text(text.clone()),
            Some(Word::Name(name)) if name.eq_ignore_ascii_case("true") => Value::Boolean(true),
            Some(Word::Name(name)) if name.eq_ignore_ascii_case("false") => Value::Boolean(false),
            Some(Word::Name(name)) if name.eq_ignore_ascii_case("null") => Value::Null,
            Some(Word::Name(_) | Word::Quoted(_)) => {
                return Err(self.expected(&format!("{EXPECTED}; text stands in single quotes")));
            }
            _ => return Err(self.expected(EXPECTED)),
        };
        self.next += 1;
        Ok(Literal { value, at })
    }
}

fn is_keyword(name: &str) -> bool {
    KEYWORDS
        .iter()
        .any(|keyword| name.eq_ignore_ascii_case(keyword))
}
