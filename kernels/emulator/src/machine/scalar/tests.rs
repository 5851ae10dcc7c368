use super::*;

#[test]
fn integer_corner_cases() {
    assert_eq!(int32(Int::DivS, i32::MIN as u32, -1i32 as u32), i32::MIN as u32);
    assert_eq!(int32(Int::DivU, 5, 0), u32::MAX);
    assert_eq!(int32(Int::RemS, -7i32 as u32, 3), -1i32 as u32);
    assert_eq!(int32(Int::Shl, 1, 32), 0);
    assert_eq!(int32(Int::ShrS, 0x8000_0000, 99), u32::MAX);
    assert_eq!(int32(Int::MulHiS, -1i32 as u32, 2), u32::MAX);
    assert_eq!(int32(Int::MulHiU, u32::MAX, 2), 1);
    assert_eq!(int64(Int::MulHiU, u64::MAX, 2), 1);
    assert_eq!(int16(Int::ShrS, true, 0x8000, 4), 0xf800);
    assert_eq!(int16(Int::MinS, true, 0xffff, 1), 0xffff);
    assert_eq!(int16(Int::Add, false, 0xffff, 1), 0);
}

#[test]
fn bit_fields() {
    assert_eq!(bits(Bits::BfeU, 0xabcd_1234, 8, 8,), 0x12);
    assert_eq!(bits(Bits::BfeS, 0x0000_8000, 8, 8), 0xffff_ff80);
    assert_eq!(bits(Bits::BfeU, 0xffff_ffff, 28, 8), 0xf);
    assert_eq!(bits(Bits::BfeS, 0x8000_0000, 28, 8), 0xffff_fff8);
    assert_eq!(bits(Bits::BfeU, 1, 40, 8), 0);
    assert_eq!(bits(Bits::BfeU, 1, 0, 0), 0);
    assert_eq!(bfe(u64::MAX, 60, 10, 64, false), 0xf);
    assert_eq!(bfi(0xff, 0, 4, 8, 32), 0xff0);
    assert_eq!(bfi(0xff, 7, 32, 8, 32), 7);
    assert_eq!(bfi(0x1_2345, 0xffff_0000_0000, 32, 32, 64), 0x1_2345_0000_0000);
}

#[test]
fn permutations_and_funnels() {
    assert_eq!(prmt(0x3322_1100, 0x7766_5544, 0x7410), 0x7744_1100);
    assert_eq!(prmt(0x0000_0080, 0, 0x0008), 0x8080_80ff);
    assert_eq!(bits(Bits::ShfL { wrap: true }, 0x8000_0000, 1, 33), 3);
    assert_eq!(bits(Bits::ShfL { wrap: false }, 7, 9, 40), 7);
    assert_eq!(bits(Bits::ShfR { wrap: true }, 2, 1, 1), 0x8000_0001);
    assert_eq!(bits(Bits::Lop3 { table: 0xe8 }, 0b1100, 0b1010, 0b0110), 0b1110);
    assert_eq!(bits(Bits::SadS, -3i32 as u32, 4, 1), 8);
}

#[test]
fn a_nan_gives_way_to_a_number() {
    assert_eq!(max32(f32::NAN, 1.0), 1.0);
    assert_eq!(max32(1.0, f32::NAN), 1.0);
    assert!(max32(f32::NAN, f32::NAN).is_nan());
    assert_eq!(max32(-0.0, 0.0).to_bits(), 0);
    assert_eq!(min32(0.0, -0.0).to_bits(), 0x8000_0000);
    assert_eq!(min32(f32::NEG_INFINITY, 1.0), f32::NEG_INFINITY);
    let plain = Mode::PLAIN;
    assert!(float32(Float::MaxNan, plain, f32::NAN, 1.0).is_nan());
}

#[test]
fn directed_rounding_brackets_the_exact_value() {
    let mode = |round| Mode { round, ..Mode::PLAIN };
    let (a, b, c) = (1.000_000_1f32, 1.000_000_2f32, 1.0e-9f32);
    let down = fma32(mode(Round::Down), a, b, c);
    let up = fma32(mode(Round::Up), a, b, c);
    assert_eq!(down.next_up(), up);
    let exact = f64::from(a) * f64::from(b) + f64::from(c);
    assert!(f64::from(down) <= exact && exact <= f64::from(up));
    assert_eq!(fma32(mode(Round::Zero), a, b, c), down);
    assert_eq!(fma32(mode(Round::Zero), -a, b, -c), -down);
    // What double precision loses still decides.
    assert_eq!(float32(Float::Add, mode(Round::Down), 1.0, -1.0e-30), 1.0f32.next_down());
    assert_eq!(float32(Float::Add, mode(Round::Up), 1.0, 1.0e-30), 1.0f32.next_up());
    assert_eq!(float32(Float::Add, mode(Round::Up), 1.0, 2.0), 3.0);
}

#[test]
fn flushing_and_clamping() {
    let tiny = f32::from_bits(1);
    let mode = Mode { ftz: true, ..Mode::PLAIN };
    assert_eq!(float32(Float::Add, mode, tiny, 0.0), 0.0);
    assert_eq!(float32(Float::Mul, mode, -1e-30, 1e-10).to_bits(), 0x8000_0000);
    let mode = Mode { sat: true, ..Mode::PLAIN };
    assert_eq!(float32(Float::Add, mode, 1.0, 1.0), 1.0);
    assert_eq!(float32(Float::Sub, mode, 1.0, 3.0), 0.0);
    assert_eq!(float32(Float::Add, mode, f32::NAN, 3.0), 0.0);
}
