//! Words, numbers and punctuation of a PTX text, each with its line.

use super::PtxError;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// An identifier, a directive such as `.reg`, or an opcode with its suffixes such as `add.s32`.
    Word(&'a str),
    /// A number as written, without a sign.
    Number(&'a str),
    /// The text between double quotes.
    Text(&'a str),
    /// A single character.
    Mark(char),
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind<'a>,
    /// Its line, counted from 1.
    pub line: u32,
}

/// Splits a text into tokens. Comments go, and so do `.loc` and `.file` lines, which no semicolon ends.
pub fn lex(text: &str) -> Result<Vec<Token<'_>>, PtxError> {
    let mut lexer = Lexer { text, at: 0, line: 1, tokens: Vec::with_capacity(text.len() / 4) };
    while lexer.at < text.len() {
        lexer.next()?;
    }
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    tokens: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Result<(), PtxError> {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else { return Ok(()) };
        match first {
            '\n' => self.line += 1,
            _ if first.is_whitespace() => {}
            '/' if rest.starts_with("//") => return self.skip_line(),
            '/' if rest.starts_with("/*") => return self.skip_comment(),
            '"' => {
                let end = rest[1..].find('"').ok_or_else(|| PtxError::new(self.line, "a text without its end"))?;
                self.push(Kind::Text(&rest[1..=end]), end + 2);
                return Ok(());
            }
            '0'..='9' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
                self.push(Kind::Number(&rest[..end]), end);
                return Ok(());
            }
            _ if starts_word(first) => {
                let word = &rest[..word_end(rest)];
                if word == ".loc" || word == ".file" {
                    return self.skip_line();
                }
                self.push(Kind::Word(word), word.len());
                return Ok(());
            }
            _ => {
                self.push(Kind::Mark(first), first.len_utf8());
                return Ok(());
            }
        }
        self.at += first.len_utf8();
        Ok(())
    }

    fn push(&mut self, kind: Kind<'a>, length: usize) {
        self.tokens.push(Token { kind, line: self.line });
        self.at += length;
    }

    fn skip_line(&mut self) -> Result<(), PtxError> {
        self.at = self.text[self.at..].find('\n').map_or(self.text.len(), |end| self.at + end);
        Ok(())
    }

    fn skip_comment(&mut self) -> Result<(), PtxError> {
        let rest = &self.text[self.at..];
        let end = rest.find("*/").ok_or_else(|| PtxError::new(self.line, "a comment without its end"))?;
        self.line += rest[..end].matches('\n').count() as u32;
        self.at += end + 2;
        Ok(())
    }
}

fn starts_word(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '_' | '$' | '%' | '.')
}

/// A word may contain `::`, as in `.L1::no_allocate`; a single colon ends it and makes it a label.
fn word_end(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut end = 1;
    while end < bytes.len() {
        match bytes[end] {
            b':' if bytes.get(end + 1) == Some(&b':') => end += 2,
            b'_' | b'$' | b'%' | b'.' => end += 1,
            byte if byte.is_ascii_alphanumeric() => end += 1,
            _ => break,
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_marks_and_lines() {
        let tokens = lex("// c\n.loc 1 2 3\nld.global.L1::no_allocate.f32 %f1, [%rd1+-4]; /* \n */ $L1:").unwrap();
        let kinds: Vec<_> = tokens.iter().map(|token| token.kind).collect();
        assert_eq!(
            kinds,
            [
                Kind::Word("ld.global.L1::no_allocate.f32"),
                Kind::Word("%f1"),
                Kind::Mark(','),
                Kind::Mark('['),
                Kind::Word("%rd1"),
                Kind::Mark('+'),
                Kind::Mark('-'),
                Kind::Number("4"),
                Kind::Mark(']'),
                Kind::Mark(';'),
                Kind::Word("$L1"),
                Kind::Mark(':'),
            ]
        );
        assert_eq!((tokens[0].line, tokens[10].line), (3, 4));
    }

    #[test]
    fn an_open_comment_is_an_error() {
        assert_eq!(lex("\n/* never").unwrap_err().line, 2);
    }
}
