use super::*;
use crate::ptx::syntax::Operand;

const HEADER: &str = ".version 8.2\n.target sm_80\n.address_size 64\n";

fn source(body: &str) -> Result<Source, PtxError> {
    parse(&format!("{HEADER}{body}"))
}

#[test]
fn variables_have_sizes_alignments_and_initial_bytes() {
    let source = source(
        ".const .align 4 .b8 table[8] = {1, 2, 3};\n.global .u32 counter = 5;\n.extern .shared .align 16 .b8 sm[];",
    )
    .unwrap();
    let [table, counter, dynamic] = &source.variables[..] else { panic!("three variables") };
    assert_eq!((table.bytes, table.align, &table.init[..]), (8, 4, &[1, 2, 3][..]));
    assert_eq!((counter.bytes, counter.align, &counter.init[..]), (4, 4, &[5, 0, 0, 0][..]));
    assert!(dynamic.is_extern && dynamic.is_shared());
}

#[test]
fn parameters_are_laid_out_like_a_c_struct() {
    let source = source(".entry k(.param .u32 a, .param .u64 b, .param .align 8 .b8 c[12], .param .u8 d) { ret; }");
    let places: Vec<_> = source.unwrap().entries[0].parameters.iter().map(|p| (p.offset, p.bytes)).collect();
    assert_eq!(places, [(0, 4), (8, 8), (16, 12), (28, 1)]);
}

#[test]
fn an_inner_brace_may_declare_a_register_anew() {
    let source =
        source(".entry k() {.reg .pred %p<3>; .reg .b32 %r<3>; { .reg .b32 %p1; mov.u32 %p1, %r1; } @%p1 ret; }")
            .unwrap();
    let entry = &source.entries[0];
    let Operand::Register(inner) = entry.instructions[0].operands[0] else { panic!("a register") };
    let (outer, _) = entry.instructions[1].guard.unwrap();
    assert_ne!(inner, outer);
}

#[test]
fn labels_bind_forward_and_backward() {
    let source = source(".entry k() { $A: bra $B; $B: bra.uni $A; ret; }").unwrap();
    let targets: Vec<_> = source.entries[0].instructions.iter().map(|i| i.operands.clone()).collect();
    assert_eq!(targets, [vec![Operand::Target(1)], vec![Operand::Target(0)], vec![]]);
}

#[test]
fn errors_name_the_line() {
    for (body, line, part) in [
        (".entry k() {\n bra $nowhere; }", 5, "unknown label $nowhere"),
        (".entry k() {\n add.s32 %r1, %r2; }", 5, ""),
        (".entry k() {\n mov.u32 what, 1; }", 5, "unknown name `what`"),
        (".nonsense", 4, "unknown directive .nonsense"),
        (".entry k() {", 4, "expected an instruction"),
        (".global .u8 x[2] = {1, 2, 3};", 4, "more initial values than room"),
    ] {
        match source(body) {
            Err(error) => assert!(error.line == line && error.message.contains(part), "{error}"),
            // `%r1` parses as a special register; the decoder refuses it.
            Ok(_) => assert!(part.is_empty(), "{body}"),
        }
    }
    assert_eq!(parse(".target sm_80").unwrap_err().message, "no .version directive");
}
