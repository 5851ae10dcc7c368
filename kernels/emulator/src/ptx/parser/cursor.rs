//! A position in a list of tokens.

use crate::ptx::PtxError;
use crate::ptx::lexer::{Kind, Token};

/// Reads tokens one after the other.
pub(super) struct Cursor<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(tokens: &'a [Token<'a>]) -> Self {
        Self { tokens, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    pub(super) fn peek_word(&self) -> Option<&'a str> {
        match self.peek()?.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Whether the token after the next one is this mark.
    pub(super) fn second_is(&self, mark: char) -> bool {
        self.tokens.get(self.at + 1).is_some_and(|token| token.kind == Kind::Mark(mark))
    }

    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    pub(super) fn retreat(&mut self) {
        self.at -= 1;
    }

    /// The line of the next token, or of the last one at the end.
    pub(super) fn line(&self) -> u32 {
        self.peek().or(self.tokens.last().copied()).map_or(1, |token| token.line)
    }

    pub(super) fn at(&self, mark: char) -> bool {
        self.peek().is_some_and(|token| token.kind == Kind::Mark(mark))
    }

    pub(super) fn accept(&mut self, mark: char) -> bool {
        let found = self.at(mark);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, mark: char) -> Result<(), PtxError> {
        if self.accept(mark) { Ok(()) } else { Err(self.unexpected(&format!("`{mark}`"))) }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> PtxError {
        let found = match self.peek().map(|token| token.kind) {
            None => "the end of the text".to_owned(),
            Some(Kind::Word(text) | Kind::Number(text) | Kind::Text(text)) => format!("`{text}`"),
            Some(Kind::Mark(mark)) => format!("`{mark}`"),
        };
        PtxError::new(self.line(), format!("expected {wanted}, found {found}"))
    }

    pub(super) fn word(&mut self) -> Result<&'a str, PtxError> {
        let word = self.peek_word().ok_or_else(|| self.unexpected("a name"))?;
        self.advance();
        Ok(word)
    }

    pub(super) fn number_text(&mut self) -> Result<&'a str, PtxError> {
        let Some(Kind::Number(text)) = self.peek().map(|token| token.kind) else {
            return Err(self.unexpected("a number"));
        };
        self.advance();
        Ok(text)
    }

    /// An integer with an optional sign.
    pub(super) fn integer(&mut self) -> Result<i64, PtxError> {
        let negative = self.accept('-');
        if !negative {
            self.accept('+');
        }
        let line = self.line();
        let text = self.number_text()?;
        let value = integer(text).ok_or_else(|| PtxError::new(line, format!("`{text}` is no integer")))?;
        Ok(if negative { value.wrapping_neg() } else { value })
    }

    pub(super) fn unsigned(&mut self) -> Result<u32, PtxError> {
        let line = self.line();
        let value = self.integer()?;
        u32::try_from(value).map_err(|_| PtxError::new(line, format!("{value} is out of range")))
    }

    /// The bits of an integer or floating-point literal.
    pub(super) fn literal_bits(&mut self) -> Result<u64, PtxError> {
        if let Some(Kind::Number(text)) = self.peek().map(|token| token.kind)
            && let Some(bits) = float_bits(text)
        {
            self.advance();
            return Ok(match bits {
                FloatBits::Single(bits) => u64::from(bits),
                FloatBits::Double(bits) => bits,
            });
        }
        Ok(self.integer()? as u64)
    }

    pub(super) fn skip_past(&mut self, mark: char) {
        while self.peek().is_some() && !self.accept(mark) {
            self.advance();
        }
    }
}

/// The bits of an `0f` or `0d` literal.
pub(super) enum FloatBits {
    Single(u32),
    Double(u64),
}

pub(super) fn float_bits(text: &str) -> Option<FloatBits> {
    let (kind, digits) = text.split_at_checked(2)?;
    match (kind, digits.len()) {
        ("0f" | "0F", 8) => u32::from_str_radix(digits, 16).ok().map(FloatBits::Single),
        ("0d" | "0D", 16) => u64::from_str_radix(digits, 16).ok().map(FloatBits::Double),
        _ => None,
    }
}

/// A decimal, hexadecimal, octal or binary integer; a trailing `U` says unsigned and changes nothing here.
fn integer(text: &str) -> Option<i64> {
    let text = text.trim_end_matches(['U', 'u']);
    let value = if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        u64::from_str_radix(digits, 16)
    } else if let Some(digits) = text.strip_prefix("0b").or_else(|| text.strip_prefix("0B")) {
        u64::from_str_radix(digits, 2)
    } else if text.len() > 1 && text.starts_with('0') {
        u64::from_str_radix(&text[1..], 8)
    } else {
        text.parse()
    };
    value.ok().map(|value| value as i64)
}
