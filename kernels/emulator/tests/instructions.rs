//! Every family of instructions, on values at the corners, against expectations computed here.

#[allow(dead_code, reason = "each test file uses a part")]
mod common;

use common::{Device, Parameters};
use emulator::launch::Shape;
use emulator::machine::settings::Settings;

/// Corners of 32 bits: integers, and as floats zeros, one, subnormals, infinities and NaN.
const CORNERS: [u32; 12] = [
    0,
    1,
    2,
    31,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x3f80_0000,
    0xc2f6_e979,
    0x7f80_0000,
    0x0000_8000,
    0x4b00_0001,
];

/// All pairs of corners.
fn pairs() -> Vec<(u32, u32)> {
    CORNERS.iter().flat_map(|a| CORNERS.iter().map(|b| (*a, *b))).collect()
}

/// Runs a body for every pair: `%a0` and `%b0` (`%fa`, `%fb` the same as floats, `%ha`, `%hb` their low halves, `%da`,
/// `%db` the words doubled to 64 bits) to `%o` and `%p`, two words.
fn run(body: &str) -> Vec<(u32, u32)> {
    let pairs = pairs();
    let text = format!(
        ".version 8.2\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 out)\n{{\n\
         .reg .pred %p<9>; .reg .b16 %h<9>, %ha, %hb; .reg .b32 %r<9>, %a0, %b0, %o, %p; .reg .f32 %f<9>, %fa, %fb;\n\
         .reg .b64 %rd<9>, %da, %db; .reg .f64 %fd<9>;\n\
         ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [out];\n\
         mov.u32 %r1, %tid.x; mul.wide.u32 %rd4, %r1, 4; add.s64 %rd1, %rd1, %rd4; add.s64 %rd2, %rd2, %rd4;\n\
         mul.wide.u32 %rd4, %r1, 8; add.s64 %rd3, %rd3, %rd4;\n\
         ld.global.u32 %a0, [%rd1]; ld.global.u32 %b0, [%rd2]; mov.b32 %fa, %a0; mov.b32 %fb, %b0;\n\
         mov.b64 %da, {{%b0, %a0}}; mov.b64 %db, {{%a0, %b0}}; mov.b32 {{%ha, %h1}}, %a0; mov.b32 {{%hb, %h2}}, %b0;\n\
         mov.u32 %o, 0; mov.u32 %p, 0;\n{body}\nst.global.v2.u32 [%rd3], {{%o, %p}};\nret;\n}}\n"
    );
    let mut device = Device::new(&text);
    let a = device.upload(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>());
    let b = device.upload(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>());
    let out = device.memory.allocate(8 * pairs.len() as u64).unwrap();
    let shape = Shape { grid: [1; 3], block: [pairs.len() as u32, 1, 1], dynamic_shared: 0 };
    let parameters = Parameters::default().pointer(a).pointer(b).pointer(out);
    device.launch("k", shape, &parameters, &Settings::default()).unwrap_or_else(|error| panic!("{error}"));
    device.download(out, 2 * pairs.len()).chunks_exact(2).map(|words| (words[0], words[1])).collect()
}

/// One 32-bit result.
fn check(body: &str, expected: impl Fn(u32, u32) -> u32) {
    for ((a, b), (given, _)) in pairs().into_iter().zip(run(body)) {
        assert_eq!(given, expected(a, b), "{body} of {a:#x}, {b:#x}");
    }
}

/// One float, NaN being NaN.
fn check_float(body: &str, expected: impl Fn(f32, f32) -> f32) {
    for ((a, b), (given, _)) in pairs().into_iter().zip(run(body)) {
        let (given, expected) = (f32::from_bits(given), expected(f32::from_bits(a), f32::from_bits(b)));
        let same = given.to_bits() == expected.to_bits() || given.is_nan() && expected.is_nan();
        assert!(same, "{body} of {a:#x}, {b:#x}: {given} for {expected}");
    }
}

/// One 64-bit result in `%rd5`; the operands are `b:a` with the first named word in the upper half.
fn check_wide(body: &str, expected: impl Fn(u64, u64) -> u64) {
    let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    for ((a, b), (low, high)) in pairs().into_iter().zip(run(&format!("{body} mov.b64 {{%o, %p}}, %rd5;"))) {
        assert_eq!(join(high, low), expected(join(a, b), join(b, a)), "{body} of {a:#x}, {b:#x}");
    }
}

#[test]
fn integers() {
    check("add.s32 %o, %a0, %b0;", u32::wrapping_add);
    check("sub.u32 %o, %a0, %b0;", u32::wrapping_sub);
    check("mul.lo.s32 %o, %a0, %b0;", u32::wrapping_mul);
    check("mul.hi.s32 %o, %a0, %b0;", |a, b| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32);
    check("mul.hi.u32 %o, %a0, %b0;", |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    check("mad.lo.s32 %o, %a0, %b0, 5;", |a, b| a.wrapping_mul(b).wrapping_add(5));
    check("mad.hi.u32 %o, %a0, %b0, 5;", |a, b| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(5));
    check("setp.ne.s32 %p1, %b0, 0; @%p1 div.s32 %o, %a0, %b0;", |a, b| {
        (a as i32).checked_div(b as i32).map_or(if b == 0 { 0 } else { a }, |q| q as u32)
    });
    check("setp.ne.s32 %p1, %b0, 0; @%p1 rem.u32 %o, %a0, %b0;", |a, b| a.checked_rem(b).unwrap_or(0));
    check("min.s32 %o, %a0, %b0;", |a, b| (a as i32).min(b as i32) as u32);
    check("max.u32 %o, %a0, %b0;", u32::max);
    check("abs.s32 %o, %a0;", |a, _| (a as i32).unsigned_abs());
    check("neg.s32 %o, %a0;", |a, _| a.wrapping_neg());
    check("sad.u32 %o, %a0, %b0, 1;", |a, b| a.abs_diff(b).wrapping_add(1));
}

#[test]
fn bits() {
    check("and.b32 %o, %a0, %b0;", |a, b| a & b);
    check("xor.b32 %o, %a0, %b0;", |a, b| a ^ b);
    check("not.b32 %o, %a0;", |a, _| !a);
    check("shl.b32 %o, %a0, %b0;", |a, b| a.checked_shl(b).unwrap_or(0));
    check("shr.u32 %o, %a0, %b0;", |a, b| a.checked_shr(b).unwrap_or(0));
    check("shr.s32 %o, %a0, %b0;", |a, b| ((a as i32) >> b.min(31)) as u32);
    check("popc.b32 %o, %a0;", |a, _| a.count_ones());
    check("clz.b32 %o, %a0;", |a, _| a.leading_zeros());
    check("brev.b32 %o, %a0;", |a, _| a.reverse_bits());
    check("bfind.u32 %o, %a0;", |a, _| 31u32.wrapping_sub(a.leading_zeros()));
    check("bfind.shiftamt.u32 %o, %a0;", |a, _| if a == 0 { u32::MAX } else { a.leading_zeros() });
    check("bfind.s32 %o, %a0;", |a, _| {
        let a = if (a as i32) < 0 { !a } else { a };
        31u32.wrapping_sub(a.leading_zeros())
    });
    check("bfe.u32 %o, %a0, 4, 8;", |a, _| a >> 4 & 0xff);
    check("bfe.s32 %o, %a0, 4, 8;", |a, _| {
        (a << 20) as i32 as u32 >> 24 | if a >> 11 & 1 != 0 { 0xffff_ff00 } else { 0 }
    });
    check("bfi.b32 %o, %a0, %b0, 8, 16;", |a, b| b & 0xff00_00ff | (a & 0xffff) << 8);
    check("prmt.b32 %o, %a0, %b0, 0x6240;", |a, b| a & 0xff | (b & 0xff) << 8 | a & 0xff_0000 | (b & 0xff_0000) << 8);
    check("shf.l.wrap.b32 %o, %a0, %b0, 5;", |a, b| b << 5 | a >> 27);
    check("lop3.b32 %o, %a0, %b0, %o, 0x30;", |a, b| a & !b);
    check("add.cc.u32 %r5, %a0, %b0; addc.u32 %o, 0, 0;", |a, b| u32::from(a.checked_add(b).is_none()));
    check("mov.b32 {%h3, %h4}, %a0; mov.b32 %o, {%h4, %h3};", |a, _| a.rotate_left(16));
}

#[test]
fn sixteen_bits() {
    let low = |x: u32| x as u16;
    check("add.s16 %h5, %ha, %hb; cvt.u32.u16 %o, %h5;", |a, b| u32::from(low(a).wrapping_add(low(b))));
    check("mul.lo.s16 %h5, %ha, %hb; cvt.u32.u16 %o, %h5;", |a, b| u32::from(low(a).wrapping_mul(low(b))));
    check("mul.wide.s16 %o, %ha, %hb;", |a, b| (i32::from(low(a) as i16) * i32::from(low(b) as i16)) as u32);
    check("shr.s16 %h5, %ha, 3; cvt.s32.s16 %o, %h5;", |a, _| i32::from(low(a) as i16 >> 3) as u32);
    check("setp.lt.s16 %p1, %ha, %hb; selp.u32 %o, 1, 0, %p1;", |a, b| u32::from((low(a) as i16) < low(b) as i16));
}

#[test]
fn sixty_four_bits() {
    check_wide("add.s64 %rd5, %da, %db;", u64::wrapping_add);
    check_wide("mul.lo.s64 %rd5, %da, %db;", u64::wrapping_mul);
    check_wide("mul.hi.u64 %rd5, %da, %db;", |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    check_wide("mad.lo.s64 %rd5, %da, %db, 3;", |a, b| a.wrapping_mul(b).wrapping_add(3));
    check_wide("mad.wide.u32 %rd5, %a0, %b0, %da;", |a, _| a.wrapping_add((a >> 32) * (a & 0xffff_ffff)));
    check_wide("mul.wide.s32 %rd5, %a0, %b0;", |a, _| (i64::from((a >> 32) as i32) * i64::from(a as i32)) as u64);
    check_wide("mov.u64 %rd5, 0; setp.ne.s64 %p1, %db, 0; @%p1 div.u64 %rd5, %da, %db;", |a, b| {
        a.checked_div(b).unwrap_or(0)
    });
    check_wide("shl.b64 %rd5, %da, 33;", |a, _| a << 33);
    check_wide("shr.s64 %rd5, %da, 70;", |a, _| ((a as i64) >> 63) as u64);
    check_wide("max.s64 %rd5, %da, %db;", |a, b| (a as i64).max(b as i64) as u64);
    check_wide("xor.b64 %rd5, %da, %db;", |a, b| a ^ b);
    check_wide("bfi.b64 %rd5, %da, %db, 32, 32;", |a, b| b & 0xffff_ffff | a << 32);
    check_wide("setp.lt.s64 %p1, %da, %db; selp.b64 %rd5, %da, %db, %p1;", |a, b| (a as i64).min(b as i64) as u64);
    check_wide("cvt.s64.s32 %rd5, %a0;", |a, _| (a as i64 >> 32) as u64);
    check_wide("cvt.u64.u32 %rd5, %a0;", |a, _| a >> 32);
    check("cvt.u32.u64 %o, %da;", |_, b| b);
    check("popc.b64 %o, %da;", |a, b| a.count_ones() + b.count_ones());
}

#[test]
fn single_precision() {
    check_float("add.f32 %f1, %fa, %fb; mov.b32 %o, %f1;", |a, b| a + b);
    check_float("sub.rn.f32 %f1, %fa, %fb; mov.b32 %o, %f1;", |a, b| a - b);
    check_float("mul.f32 %f1, %fa, %fb; mov.b32 %o, %f1;", |a, b| a * b);
    check_float("fma.rn.f32 %f1, %fa, %fb, %fa; mov.b32 %o, %f1;", |a, b| a.mul_add(b, a));
    check_float("div.rn.f32 %f1, %fa, %fb; mov.b32 %o, %f1;", |a, b| a / b);
    // A NaN gives way to a number; 0 is above -0.
    let max = |a: f32, b: f32| if a == b { f32::from_bits(a.to_bits() & b.to_bits()) } else { a.max(b) };
    let min = |a: f32, b: f32| if a == b { f32::from_bits(a.to_bits() | b.to_bits()) } else { a.min(b) };
    check_float("max.f32 %f1, %fa, %fb; mov.b32 %o, %f1;", max);
    check_float("min.f32 %f1, %fa, %fb; mov.b32 %o, %f1;", min);
    check_float("max.NaN.f32 %f1, %fa, %fb; mov.b32 %o, %f1;", |a, b| {
        if a.is_nan() || b.is_nan() { f32::NAN } else { max(a, b) }
    });
    check_float("abs.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| a.abs());
    check_float("neg.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| -a);
    check_float("sqrt.rn.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| a.sqrt());
    check_float("rcp.approx.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| 1.0 / a);
    check_float("rsqrt.approx.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| (1.0 / f64::from(a).sqrt()) as f32);
    check_float("sin.approx.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| f64::from(a).sin() as f32);
    check_float("cos.approx.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| f64::from(a).cos() as f32);
    let flush = |x: f32| if x.is_subnormal() { 0.0f32.copysign(x) } else { x };
    check_float("add.ftz.f32 %f1, %fa, %fb; mov.b32 %o, %f1;", |a, b| flush(flush(a) + flush(b)));
    let saturate = |x: f32| if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 };
    check_float("add.sat.f32 %f1, %fa, %fb; mov.b32 %o, %f1;", |a, b| saturate(a + b));
    check_float("cvt.sat.f32.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| saturate(a));
}

#[test]
fn exponentials() {
    check_float("ex2.approx.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| f64::from(a).exp2() as f32);
    check_float("lg2.approx.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| f64::from(a).log2() as f32);
    let flush = |x: f32| if x.is_subnormal() { 0.0f32.copysign(x) } else { x };
    check_float("lg2.approx.ftz.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| f64::from(flush(a)).log2() as f32);
}

#[test]
fn double_precision() {
    let wide = |body: &str, expected: fn(f64, f64) -> f64| {
        let body =
            format!("cvt.f64.f32 %fd1, %fa; cvt.f64.f32 %fd2, %fb; {body} cvt.rn.f32.f64 %f1, %fd3; mov.b32 %o, %f1;");
        check_float(&body, move |a, b| expected(f64::from(a), f64::from(b)) as f32);
    };
    wide("max.f64 %fd3, %fd1, %fd2;", f64::max);
    wide("min.f64 %fd3, %fd1, %fd2;", f64::min);
    wide("cvt.rpi.f64.f64 %fd3, %fd1;", |a, _| a.ceil());
    wide("cvt.sat.f64.f64 %fd3, %fd1;", |a, _| if a.is_nan() { 0.0 } else { a.clamp(0.0, 1.0) + 0.0 });
    wide("add.f64 %fd3, %fd1, %fd2;", |a, b| a + b);
    wide("fma.rn.f64 %fd3, %fd1, %fd2, %fd1;", |a, b| a.mul_add(b, a));
    wide("div.rn.f64 %fd3, %fd1, %fd2;", |a, b| a / b);
    wide("sqrt.rn.f64 %fd3, %fd1;", |a, _| a.sqrt());
    wide("copysign.f64 %fd3, %fd1, %fd2;", |a, b| b.copysign(a));
    // Of the upper 32 bits, to 20 bits of mantissa; what is subnormal counts as zero.
    check_wide("mov.b64 %fd1, %da; rcp.approx.ftz.f64 %fd3, %fd1; mov.b64 %rd5, %fd3;", |a, _| {
        let upper = |bits: u64| f64::from_bits(bits & 0xffff_ffff_0000_0000);
        let flush = |x: f64| if x.is_subnormal() { 0.0f64.copysign(x) } else { x };
        let exact = 1.0 / flush(upper(a));
        if exact.is_nan() { 0x7ff8_0000_0000_0000 } else { flush(upper(exact.to_bits() + (1 << 31))).to_bits() }
    });
}

#[test]
fn comparisons() {
    let compare = |name: &str, expected: fn(f32, f32) -> bool| {
        check(&format!("setp.{name}.f32 %p1, %fa, %fb; selp.u32 %o, 1, 0, %p1;"), move |a, b| {
            u32::from(expected(f32::from_bits(a), f32::from_bits(b)))
        });
    };
    compare("eq", |a, b| a == b);
    compare("ne", |a, b| a != b && !a.is_nan() && !b.is_nan());
    compare("lt", |a, b| a < b);
    compare("ge", |a, b| a >= b);
    compare("equ", |a, b| a == b || a.is_nan() || b.is_nan());
    compare("neu", |a, b| a != b);
    compare("ltu", |a, b| a < b || a.is_nan() || b.is_nan());
    compare("gtu", |a, b| a > b || a.is_nan() || b.is_nan());
    compare("num", |a, b| !a.is_nan() && !b.is_nan());
    compare("nan", |a, b| a.is_nan() || b.is_nan());
    check("setp.lt.s32 %p1, %a0, %b0; selp.b32 %o, %a0, %b0, %p1;", |a, b| (a as i32).min(b as i32) as u32);
    check("setp.hi.u32 %p1, %a0, %b0; selp.b32 %o, %a0, %b0, %p1;", u32::max);
    check(
        "setp.gt.u32 %p2, %a0, 2; setp.lt.and.u32 %p1|%p3, %a0, %b0, !%p2; selp.u32 %r5, 1, 0, %p1; \
           selp.u32 %r6, 2, 0, %p3; or.b32 %o, %r5, %r6;",
        |a, b| u32::from(a < b && a <= 2) + 2 * u32::from(a >= b && a <= 2),
    );
    check(
        "setp.gt.u32 %p1, %a0, 2; setp.gt.u32 %p2, %b0, 2; xor.pred %p3, %p1, %p2; not.pred %p4, %p3; \
           mov.pred %p5, %p4; selp.u32 %o, 1, 0, %p5;",
        |a, b| u32::from((a > 2) == (b > 2)),
    );
}

#[test]
fn conversions() {
    check("cvt.rzi.s32.f32 %o, %fa;", |a, _| f32::from_bits(a) as i32 as u32);
    check("cvt.rni.u32.f32 %o, %fa;", |a, _| f32::from_bits(a).round_ties_even() as u32);
    check("cvt.rmi.s32.f32 %o, %fa;", |a, _| f32::from_bits(a).floor() as i32 as u32);
    check_float("cvt.rpi.f32.f32 %f1, %fa; mov.b32 %o, %f1;", |a, _| f32::from_bits(a.to_bits()).ceil());
    check_float("cvt.rn.f32.s32 %f1, %a0; mov.b32 %o, %f1;", |a, _| a.to_bits() as i32 as f32);
    check_float("cvt.rn.f32.u32 %f1, %a0; mov.b32 %o, %f1;", |a, _| a.to_bits() as f32);
    check_float("cvt.rn.f32.u64 %f1, %da; mov.b32 %o, %f1;", |a, b| {
        (u64::from(a.to_bits()) << 32 | u64::from(b.to_bits())) as f32
    });
    check("cvt.s32.s8 %o, %a0;", |a, _| i32::from(a as i8) as u32);
    check("cvt.u32.u8 %o, %a0;", |a, _| a & 0xff);
    check("cvt.sat.s8.s32 %o, %a0;", |a, _| (a as i32).clamp(-128, 127) as u32);
    check("cvt.sat.u8.s32 %o, %a0;", |a, _| (a as i32).clamp(0, 255) as u32);
    check("cvt.u16.u32 %h5, %a0; cvt.u32.u16 %o, %h5;", |a, _| a & 0xffff);
    check("cvt.rna.tf32.f32 %o, %fa;", |a, _| {
        if f32::from_bits(a).is_finite() { a.wrapping_add(0x1000) & 0xffff_e000 } else { a & 0xffff_e000 }
    });
    // The first operand goes to the upper half.
    check("cvt.rn.bf16x2.f32 %o, %fa, 0f3F800000;", |a, _| {
        let bits = if f32::from_bits(a).is_nan() { 0x7fff } else { (a + 0x7fff + (a >> 16 & 1)) >> 16 };
        bits << 16 | 0x3f80
    });
    check("mov.f32 %f1, 0f40490FDB; cvt.rn.f16.f32 %h5, %f1; cvt.u32.u16 %o, %h5;", |_, _| 0x4248);
    check_float("mov.u16 %h5, 0x4248; cvt.f32.f16 %f1, %h5; mov.b32 %o, %f1;", |_, _| 3.140625);
    check("cvt.rn.bf16.f32 %h5, %fb; shl.b32 %o, %h6, 0; cvt.u32.u16 %o, %h5;", |_, b| {
        if f32::from_bits(b).is_nan() { 0x7fff } else { (b + 0x7fff + (b >> 16 & 1)) >> 16 }
    });
}

#[test]
fn memory_of_all_widths() {
    // Bytes of a local array, read back in other widths.
    let local = ".local .align 8 .b8 l[16]; .reg .b64 %sp, %spl; mov.u64 %spl, l; cvta.local.u64 %sp, %spl; \
                 st.local.v2.u32 [%spl], {%a0, %b0}; st.local.u8 [%spl+1], %b0; ld.local.u16 %h5, [%spl]; ";
    check(&format!("{local} cvt.u32.u16 %o, %h5;"), |a, b| a & 0xff | (b & 0xff) << 8);
    check(&format!("{local} ld.u32 %o, [%sp+4];"), |_, b| b);
    check(&format!("{local} ld.local.s8 %o, [%spl+4];"), |_, b| i32::from(b as i8) as u32);
    check("st.global.u64 [%rd3], %da; ld.global.u32 %o, [%rd3+4];", |a, _| a);
    check("st.global.u16 [%rd3], %a0; st.global.u16 [%rd3+2], %b0; ld.global.u32 %o, [%rd3];", |a, b| {
        a & 0xffff | b << 16
    });
    check("st.global.u8 [%rd3+3], %a0; ld.global.s8 %h5, [%rd3+3]; cvt.s32.s16 %o, %h5;", |a, _| {
        i32::from(a as i8) as u32
    });
}

#[test]
fn atomics() {
    let atom = |name: &str, expected: fn(u32, u32) -> u32| {
        check(
            &format!("st.global.u32 [%rd3], %a0; atom.global.{name} %r5, [%rd3], %b0; ld.global.u32 %o, [%rd3];"),
            expected,
        );
    };
    atom("add.u32", u32::wrapping_add);
    atom("min.s32", |a, b| (a as i32).min(b as i32) as u32);
    atom("max.u32", u32::max);
    atom("and.b32", |a, b| a & b);
    atom("exch.b32", |_, b| b);
    atom("inc.u32", |a, b| if a >= b { 0 } else { a + 1 });
    check(
        "st.global.u32 [%rd3], %a0; atom.global.cas.b32 %o, [%rd3], %b0, 77; ld.global.u32 %r5, [%rd3]; \
           add.s32 %o, %o, %r5;",
        |a, b| a.wrapping_add(if a == b { 77 } else { a }),
    );
    check_wide(
        "st.global.u64 [%rd3], %da; atom.global.add.u64 %rd6, [%rd3], %db; ld.global.u64 %rd5, [%rd3];",
        u64::wrapping_add,
    );
    check_float("st.global.f32 [%rd3], %fa; red.global.add.f32 [%rd3], %fb; ld.global.u32 %o, [%rd3];", |a, b| a + b);
}

#[test]
fn special_registers_and_constants() {
    check("mov.u32 %r5, %laneid; mov.u32 %r6, %tid.x; and.b32 %r6, %r6, 31; sub.s32 %o, %r5, %r6;", |_, _| 0);
    check("mov.u32 %r5, %lanemask_lt; popc.b32 %r5, %r5; mov.u32 %r6, %laneid; sub.s32 %o, %r5, %r6;", |_, _| 0);
    check("mov.u32 %r5, %ntid.x; mov.u32 %r6, %nctaid.y; mul.lo.s32 %o, %r5, %r6;", |_, _| 144);
    check("mov.u64 %rd5, %clock64; mov.u32 %r5, %clock; mov.u32 %o, WARP_SZ;", |_, _| 32);
    check("{ .reg .b32 %a0; mov.u32 %a0, 0x1F; add.s32 %o, %a0, 017; }", |_, _| 46);
    // The last warp has 16 threads.
    check("redux.sync.add.u32 %r5, 1, -1; activemask.b32 %r6; popc.b32 %r6, %r6; sub.s32 %o, %r5, %r6;", |_, _| 0);
}
