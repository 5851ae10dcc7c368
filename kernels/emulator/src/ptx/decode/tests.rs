use super::*;
use crate::ptx::Module;

fn module(body: &str) -> Result<Module, PtxError> {
    Module::parse(&format!(
        ".version 8.2\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n\
         .reg .pred %p<4>; .reg .b16 %rs<4>; .reg .b32 %r<9>; .reg .f32 %f<9>; .reg .b64 %rd<9>; .shared .b8 s[64];\n\
         {body}\n}}"
    ))
}

fn code(body: &str) -> Vec<Op> {
    let module = module(body).unwrap();
    module.kernels["k"].code.iter().map(|inst| inst.op.clone()).collect()
}

#[test]
fn the_last_instruction_always_leaves() {
    assert_eq!(code(""), [Op::Exit]);
    assert_eq!(code("$L: bra $L;"), [Op::Branch { target: 0 }, Op::Exit]);
}

#[test]
fn constants_lie_behind_the_registers_and_are_shared() {
    let module = module("add.s32 %r1, %r0, -1; add.s32 %r0, %r1, -1; mov.u32 %r0, %tid.x;").unwrap();
    let program = &module.kernels["k"];
    assert_eq!(program.narrow_registers, 2);
    assert_eq!(program.narrow_fixed.len(), 2);
    assert_eq!(program.narrow_fixed[0], Fixed::Value(u64::from(u32::MAX)));
    let Op::Int32 { b, .. } = program.code[0].op else { panic!("an addition") };
    assert_eq!(b, 2);
}

#[test]
fn shared_variables_that_are_not_named_outside_take_no_room() {
    let text = ".version 8.2\n.target sm_80\n.shared .align 8 .b8 a[100];\n.extern .shared .align 32 .b8 d[];\n\
                .entry k() { .reg .b32 %r<2>; mov.u32 %r0, d; }\n.entry l() { .reg .b32 %r<2>; mov.u32 %r0, a; mov.u32 %r1, d; }";
    let module = Module::parse(text).unwrap();
    assert_eq!((module.kernels["k"].static_shared, module.kernels["k"].dynamic_base), (0, 0));
    assert_eq!((module.kernels["l"].static_shared, module.kernels["l"].dynamic_base), (100, 128));
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    for (body, part) in [
        ("frobnicate.b32 %r0, %r1;", "frobnicate.b32 in kernel k: unsupported instruction"),
        ("add.purple.s32 %r0, %r1, %r2;", "unsupported suffix .purple"),
        ("add.s32 %rd0, %r1, %r2;", "%rd0 is not 32 bits or fewer"),
        ("add.s32 %r0, %r1;", "2 operands where 3 are needed"),
        ("add.s32 %r0, %r1, %r9;", "unsupported special register %r9"),
        ("mul.s32 %r0, %r1, %r2;", "one of .lo, .hi and .wide is needed"),
        ("mov.u32 %r0, %envreg3;", "unsupported special register %envreg3"),
        ("ld.global.v2.f32 %f0, [%rd0];", "1 registers where 2 are needed"),
        ("st.const.f32 [%rd0], %f0;", "this state space cannot be written"),
        ("cp.async.cg.shared.global [%r0], [%rd0], 8;", "copies of 8 bytes are not allowed"),
        ("ex2.f32 %f0, %f1;", ".approx is needed"),
        ("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%f0}, {%f1}, {%f2}, {%f3};", "unsupported shape"),
    ] {
        let error = module(body).unwrap_err();
        assert!(error.message.contains(part), "{body}: {error}");
        assert_eq!(error.line, 6, "{body}");
    }
}
