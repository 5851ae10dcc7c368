//! The grammar of a PTX text: directives, declarations, functions.

mod body;
mod cursor;
mod scope;

use super::PtxError;
use super::lexer::{Kind, lex};
use super::syntax::{Entry, Parameter, Source, Variable};
use super::types::{Space, Type};
use cursor::Cursor;

/// Parses a text.
///
/// # Errors
///
/// The first violation of the grammar, with its line. Device functions (`.func`) are skipped: a call of one is refused
/// by the decoder.
pub fn parse(text: &str) -> Result<Source, PtxError> {
    let tokens = lex(text)?;
    let mut cursor = Cursor::new(&tokens);
    let mut source = Source::default();
    while let Some(token) = cursor.peek() {
        let Kind::Word(word) = token.kind else { return Err(cursor.unexpected("a directive")) };
        cursor.advance();
        match word {
            ".version" => source.version = version(cursor.number_text()?, token.line)?,
            ".target" => {
                source.target = cursor.word()?.to_owned();
                while cursor.accept(',') {
                    cursor.word()?;
                }
            }
            ".address_size" => {
                if cursor.integer()? != 64 {
                    return Err(PtxError::new(token.line, "only .address_size 64 is supported"));
                }
            }
            ".visible" | ".weak" | ".extern" | ".common" => {
                let is_extern = word == ".extern";
                match cursor.peek_word() {
                    Some(".entry" | ".func") => {}
                    _ => source.variables.push(variable(&mut cursor, is_extern)?),
                }
            }
            ".global" | ".const" | ".shared" => {
                cursor.retreat();
                source.variables.push(variable(&mut cursor, false)?);
            }
            ".entry" => {
                let entry = entry(&mut cursor, &source.variables)?;
                source.entries.push(entry);
            }
            ".func" => skip_function(&mut cursor)?,
            ".section" => skip_block(&mut cursor)?,
            ".pragma" => cursor.skip_past(';'),
            _ => return Err(PtxError::new(token.line, format!("unknown directive {word}"))),
        }
    }
    if source.version == (0, 0) {
        return Err(PtxError::new(1, "no .version directive"));
    }
    if source.target.is_empty() {
        return Err(PtxError::new(1, "no .target directive"));
    }
    Ok(source)
}

fn version(text: &str, line: u32) -> Result<(u32, u32), PtxError> {
    text.split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| PtxError::new(line, format!("`{text}` is no version")))
}

/// `.global .align 4 .b8 name[16] = {1, 2};` from the state space on.
fn variable(cursor: &mut Cursor<'_>, is_extern: bool) -> Result<Variable, PtxError> {
    let line = cursor.line();
    let space = cursor.word()?;
    let space = space
        .strip_prefix('.')
        .and_then(Space::parse)
        .ok_or_else(|| PtxError::new(line, format!("`{space}` is no state space")))?;
    let mut align = 0;
    let mut ty = None;
    while let Some(word) = cursor.peek_word().filter(|word| word.starts_with('.')) {
        cursor.advance();
        match word {
            ".align" => align = cursor.unsigned()?,
            ".attribute" => cursor.skip_past(')'),
            _ => ty = Some(type_of(word, line)?),
        }
    }
    let ty = ty.ok_or_else(|| PtxError::new(line, "a variable without a type"))?;
    let name = cursor.word()?.to_owned();
    let mut bytes = ty.bytes();
    while cursor.accept('[') {
        let count = if cursor.at(']') { 0 } else { cursor.unsigned()? };
        bytes = bytes.checked_mul(count).ok_or_else(|| PtxError::new(line, format!("{name} is too large")))?;
        cursor.expect(']')?;
    }
    let init = if cursor.accept('=') { initialiser(cursor, ty, 0)? } else { Vec::new() };
    cursor.expect(';')?;
    if init.len() > bytes as usize {
        return Err(PtxError::new(line, format!("{name} has more initial values than room")));
    }
    let align = if align == 0 { ty.bytes() } else { align };
    if !align.is_power_of_two() {
        return Err(PtxError::new(line, format!("the alignment {align} of {name} is no power of two")));
    }
    Ok(Variable { name, space, bytes, align, init, is_extern })
}

fn initialiser(cursor: &mut Cursor<'_>, ty: Type, depth: u32) -> Result<Vec<u8>, PtxError> {
    if depth > MAX_DIMENSIONS {
        return Err(PtxError::new(cursor.line(), "braces are nested too deeply"));
    }
    let mut bytes = Vec::new();
    let braces = cursor.accept('{');
    while !cursor.at('}') {
        if cursor.at('{') {
            bytes.extend(initialiser(cursor, ty, depth + 1)?);
        } else {
            let value = cursor.literal_bits()?;
            bytes.extend_from_slice(&value.to_le_bytes()[..ty.bytes() as usize]);
        }
        if !braces || !cursor.accept(',') {
            break;
        }
    }
    if braces {
        cursor.expect('}')?;
    }
    Ok(bytes)
}

/// Dimensions of an array that its initialiser may have.
const MAX_DIMENSIONS: u32 = 8;

fn type_of(word: &str, line: u32) -> Result<Type, PtxError> {
    word.strip_prefix('.').and_then(Type::parse).ok_or_else(|| PtxError::new(line, format!("`{word}` is no type")))
}

/// A kernel from its name on.
fn entry(cursor: &mut Cursor<'_>, globals: &[Variable]) -> Result<Entry, PtxError> {
    let mut entry = Entry { line: cursor.line(), name: cursor.word()?.to_owned(), ..Entry::default() };
    if cursor.accept('(') {
        entry.parameters = parameters(cursor)?;
    }
    while let Some(word) = cursor.peek_word() {
        cursor.advance();
        match word {
            ".maxntid" => entry.max_threads = dimensions(cursor)?,
            ".reqntid" => entry.required_threads = dimensions(cursor)?,
            ".minnctapersm" | ".maxnctapersm" | ".maxnreg" => {
                cursor.unsigned()?;
            }
            ".pragma" => cursor.skip_past(';'),
            _ => return Err(PtxError::new(cursor.line(), format!("unknown directive {word} of a kernel"))),
        }
    }
    body::parse(cursor, &mut entry, globals)?;
    Ok(entry)
}

fn dimensions(cursor: &mut Cursor<'_>) -> Result<[u32; 3], PtxError> {
    let mut dimensions = [1; 3];
    for (axis, dimension) in dimensions.iter_mut().enumerate() {
        if axis > 0 && !cursor.accept(',') {
            break;
        }
        *dimension = cursor.unsigned()?;
    }
    Ok(dimensions)
}

fn parameters(cursor: &mut Cursor<'_>) -> Result<Vec<Parameter>, PtxError> {
    let mut parameters = Vec::new();
    let mut end = 0u32;
    while !cursor.accept(')') {
        let line = cursor.line();
        if cursor.word()? != ".param" {
            return Err(PtxError::new(line, "a kernel parameter must be .param"));
        }
        let (mut align, mut ty) = (0, None);
        while let Some(word) = cursor.peek_word().filter(|word| word.starts_with('.')) {
            cursor.advance();
            match word {
                // `.ptr .global .align 4` speaks of what the pointer points to.
                ".align" if ty.is_none() => align = cursor.unsigned()?,
                ".align" => drop(cursor.unsigned()?),
                ".ptr" | ".global" | ".const" | ".shared" | ".local" => {}
                _ => ty = Some(type_of(word, line)?),
            }
        }
        let ty = ty.ok_or_else(|| PtxError::new(line, "a parameter without a type"))?;
        let name = cursor.word()?.to_owned();
        let mut bytes = ty.bytes();
        if cursor.accept('[') {
            bytes = bytes.saturating_mul(cursor.unsigned()?);
            cursor.expect(']')?;
        }
        let align = if align == 0 { ty.bytes() } else { align };
        let offset = end.next_multiple_of(align);
        end = offset.saturating_add(bytes);
        if end > MAX_PARAMETER_BYTES {
            return Err(PtxError::new(line, format!("parameters take more than {MAX_PARAMETER_BYTES} bytes")));
        }
        parameters.push(Parameter { name, offset, bytes });
        cursor.accept(',');
    }
    Ok(parameters)
}

/// The limit of PTX ISA 8.1 and later on sm_70 and later is 32764; before that it was 4352.
const MAX_PARAMETER_BYTES: u32 = 32764;

fn skip_function(cursor: &mut Cursor<'_>) -> Result<(), PtxError> {
    while !cursor.at('{') {
        if cursor.accept(';') {
            return Ok(());
        }
        if cursor.peek().is_none() {
            return Err(cursor.unexpected("the body of a function"));
        }
        cursor.advance();
    }
    skip_block(cursor)
}

fn skip_block(cursor: &mut Cursor<'_>) -> Result<(), PtxError> {
    let mut depth = 0u32;
    while let Some(token) = cursor.peek() {
        cursor.advance();
        match token.kind {
            Kind::Mark('{') => depth += 1,
            Kind::Mark('}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
    Err(cursor.unexpected("a closing brace"))
}

#[cfg(test)]
mod tests;
