//! Matrix products and matrix loads, with the layouts of fragments stated as the manual's figures draw them.

#[allow(dead_code, reason = "each test file uses a part")]
mod common;

use common::{Device, Parameters};
use emulator::launch::Shape;
use emulator::machine::settings::Settings;

/// Small whole numbers, exact in every format.
fn a(row: usize, k: usize) -> f32 {
    (row * 3 + k * 5) as f32 % 13.0 - 6.0
}

fn b(k: usize, column: usize) -> f32 {
    (k * 7 + column * 2) as f32 % 11.0 - 5.0
}

fn c(row: usize, column: usize) -> f32 {
    (row + 16 * column) as f32 / 4.0
}

/// Two numbers of 16 bits, the first in the lower half.
fn pack(bf16: bool, low: f32, high: f32) -> u32 {
    let half = |x: f32| {
        if bf16 {
            return x.to_bits() >> 16;
        }
        // Whole numbers below 16 as halves: sign, exponent, three bits of mantissa.
        let bits = x.to_bits();
        if x == 0.0 { 0 } else { bits >> 16 & 0x8000 | ((bits >> 23 & 0xff) - 112) << 10 | bits >> 13 & 0x3ff }
    };
    half(low) | half(high) << 16
}

/// Runs one product of a warp; registers of A and B by lane. Gives D by lane.
fn product(shape: &str, types: &str, a: [Vec<u32>; 32], b: [Vec<u32>; 32]) -> Vec<[f32; 4]> {
    let names = |letter: &str, count: usize| (0..count).map(|i| format!("%{letter}{i}")).collect::<Vec<_>>().join(", ");
    let (an, bn) = (a[0].len(), b[0].len());
    let loads = |letter: &str, count: usize, from: usize| -> String {
        (0..count).map(|i| format!("ld.global.u32 %{letter}{i}, [%rd2+{}];\n", 4 * (from + i))).collect()
    };
    let text = format!(
        ".version 8.2\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out)\n{{\n\
         .reg .b32 %r<4>, %a<4>, %b<2>; .reg .f32 %c<4>; .reg .b64 %rd<4>;\n\
         ld.param.u64 %rd1, [in]; ld.param.u64 %rd3, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 40;\n\
         add.s64 %rd2, %rd1, %rd2; mul.wide.u32 %rd1, %r1, 16; add.s64 %rd3, %rd3, %rd1;\n{}{}{}\
         mma.sync.aligned.{shape}.row.col.f32.{types}.{types}.f32 {{{}}}, {{{}}}, {{{}}}, {{{}}};\n\
         st.global.v4.f32 [%rd3], {{{}}};\nret;\n}}\n",
        loads("a", an, 0),
        loads("b", bn, 4),
        loads("c", 4, 6),
        names("c", 4),
        names("a", an),
        names("b", bn),
        names("c", 4),
        names("c", 4)
    );
    let mut words = vec![0; 320];
    for lane in 0..32 {
        words[10 * lane..][..an].copy_from_slice(&a[lane]);
        words[10 * lane + 4..][..bn].copy_from_slice(&b[lane]);
        for i in 0..4 {
            words[10 * lane + 6 + i] = c(lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2).to_bits();
        }
    }
    let mut device = Device::new(&text);
    let input = device.upload(&words);
    let out = device.memory.allocate(512).unwrap();
    let shape = Shape { grid: [1; 3], block: [32, 1, 1], dynamic_shared: 0 };
    device.launch("k", shape, &Parameters::default().pointer(input).pointer(out), &Settings::default()).unwrap();
    device.download_floats(out, 128).chunks_exact(4).map(|d| [d[0], d[1], d[2], d[3]]).collect()
}

/// Compares D with a plain product: `d0` and `d1` are at row `g`, columns `2 t` and `2 t + 1`; `d2`, `d3` at row `g + 8`.
fn check(d: &[[f32; 4]], depth: usize) {
    for (lane, d) in d.iter().enumerate() {
        let (g, t) = (lane / 4, lane % 4);
        for (value, (row, column)) in d.iter().zip([(g, 2 * t), (g, 2 * t + 1), (g + 8, 2 * t), (g + 8, 2 * t + 1)]) {
            let expected = c(row, column) + (0..depth).map(|k| a(row, k) * b(k, column)).sum::<f32>();
            assert_eq!(*value, expected, "row {row}, column {column}, depth {depth}");
        }
    }
}

#[test]
fn tf32() {
    let of = |lane: usize| (lane / 4, lane % 4);
    // m16n8k8: a0 (g, t), a1 (g + 8, t), a2 (g, t + 4), a3 (g + 8, t + 4); b0 (t, g), b1 (t + 4, g).
    // The low 13 bits are noise that hardware ignores.
    let fa = std::array::from_fn(|lane| {
        let (g, t) = of(lane);
        [(g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)].map(|(row, k)| a(row, k).to_bits() | 0x1fff).to_vec()
    });
    let fb = std::array::from_fn(|lane| {
        let (g, t) = of(lane);
        [t, t + 4].map(|k| b(k, g).to_bits()).to_vec()
    });
    check(&product("m16n8k8", "tf32", fa, fb), 8);
    // m16n8k4: the first half of each.
    let fa = std::array::from_fn(|lane| {
        let (g, t) = of(lane);
        [(g, t), (g + 8, t)].map(|(row, k)| a(row, k).to_bits()).to_vec()
    });
    let fb = std::array::from_fn(|lane| vec![b(lane % 4, lane / 4).to_bits()]);
    check(&product("m16n8k4", "tf32", fa, fb), 4);
}

#[test]
fn sixteen_bits() {
    for (bf16, name) in [(true, "bf16"), (false, "f16")] {
        // m16n8k16: a0 (g, 2t), a1 (g + 8, 2t), a2 (g, 2t + 8), a3 (g + 8, 2t + 8), each with its right neighbour;
        // b0 (2t, g), b1 (2t + 8, g), each with its lower neighbour.
        let fa = std::array::from_fn(|lane| {
            let (g, t) = (lane / 4, lane % 4);
            [(g, 2 * t), (g + 8, 2 * t), (g, 2 * t + 8), (g + 8, 2 * t + 8)]
                .map(|(row, k)| pack(bf16, a(row, k), a(row, k + 1)))
                .to_vec()
        });
        let fb = std::array::from_fn(|lane| {
            let (g, t) = (lane / 4, lane % 4);
            [2 * t, 2 * t + 8].map(|k| pack(bf16, b(k, g), b(k + 1, g))).to_vec()
        });
        check(&product("m16n8k16", name, fa, fb), 16);
        let fa = std::array::from_fn(|lane| {
            let (g, t) = (lane / 4, lane % 4);
            [g, g + 8].map(|row| pack(bf16, a(row, 2 * t), a(row, 2 * t + 1))).to_vec()
        });
        let fb = std::array::from_fn(|lane| {
            let (g, t) = (lane / 4, lane % 4);
            vec![pack(bf16, b(2 * t, g), b(2 * t + 1, g))]
        });
        check(&product("m16n8k8", name, fa, fb), 8);
    }
}

/// `ldmatrix`: lane `l` receives elements `2 (l % 4)` and the next of row `l / 4`; transposed, of column `l / 4`.
#[test]
fn matrices_from_shared_memory() {
    for (count, transpose) in [(1, ""), (2, ""), (4, ""), (1, ".trans"), (2, ".trans"), (4, ".trans")] {
        let names = (0..count).map(|i| format!("%d{i}")).collect::<Vec<_>>().join(", ");
        let stores: String = (0..count).map(|i| format!("st.global.u32 [%rd1+{}], %d{i};\n", 128 * i)).collect();
        // Element j of the four matrices is j; row r of matrix m begins at byte 16 (8 m + r).
        let text = format!(
            ".version 8.2\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out)\n{{\n\
             .reg .b32 %r<9>, %d<4>; .reg .b64 %rd<3>; .shared .align 16 .b8 s[512];\n\
             ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd1, %rd1, %rd2;\n\
             mov.u32 %r2, s; shl.b32 %r3, %r1, 4; add.s32 %r4, %r2, %r3; shl.b32 %r5, %r1, 3;\n\
             mad.lo.s32 %r6, %r1, 524296, 65536; st.shared.u32 [%r4], %r6; add.s32 %r6, %r6, 131074;\n\
             st.shared.u32 [%r4+4], %r6; add.s32 %r6, %r6, 131074; st.shared.u32 [%r4+8], %r6;\n\
             add.s32 %r6, %r6, 131074; st.shared.u32 [%r4+12], %r6; bar.sync 0;\n\
             ldmatrix.sync.aligned.m8n8.x{count}{transpose}.shared.b16 {{{names}}}, [%r4];\n{stores}ret;\n}}\n"
        );
        let mut device = Device::new(&text);
        let out = device.upload(&[0; 128]);
        let shape = Shape { grid: [1; 3], block: [32, 1, 1], dynamic_shared: 0 };
        let settings = Settings { races: true, ..Settings::default() };
        device.launch("k", shape, &Parameters::default().pointer(out), &settings).unwrap();
        for (place, given) in device.download(out, 32 * count).into_iter().enumerate() {
            let (matrix, lane) = (place / 32, place % 32);
            let (major, minor) = (lane / 4, 2 * (lane % 4));
            let element = |row: usize, column: usize| (64 * matrix + 8 * row + column) as u32;
            let expected = if transpose.is_empty() {
                element(major, minor) | element(major, minor + 1) << 16
            } else {
                element(minor, major) | element(minor + 1, major) << 16
            };
            assert_eq!(given, expected, "matrix {matrix}, lane {lane}, {transpose}");
        }
    }
}
