//! Every check of the device: a kernel that breaks the rule, and one beside it that does not.

use emulator::launch::{LaunchError, Shape, SymbolTable, launch};
use emulator::machine::fault::{Fault, FaultKind};
use emulator::machine::memory::Memory;
use emulator::machine::settings::{Order, Settings};
use emulator::ptx::Module;
use emulator::stats::KernelStats;

const WORDS: u64 = 64;

/// Runs a kernel body with 64 words of output at `%rd1` (of which none is written beforehand), shared memory `s` of 256
/// bytes, and the thread's number in `%r1`.
fn run_body(body: &str, threads: u32, settings: &Settings) -> Result<(Vec<u32>, KernelStats), Fault> {
    let text = format!(
        ".version 8.2\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out) .maxntid 1024, 1, 1\n{{\n\
         .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<64>; .reg .f32 %f<64>; .reg .b64 %rd<16>;\n\
         .shared .align 16 .b8 s[256];\n\
         ld.param.u64 %rd1, [out]; cvta.to.global.u64 %rd1, %rd1; mov.u32 %r1, %tid.x;\n\
         mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2; shl.b32 %r2, %r1, 2; mov.u32 %r3, s; add.s32 %r4, %r3, %r2;\n\
         {body}\nret;\n}}\n"
    );
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut memory = Memory::new(1 << 20);
    let out = memory.allocate(4 * WORDS).unwrap();
    let shape = Shape { grid: [1, 1, 1], block: [threads, 1, 1], dynamic_shared: 0 };
    let program = &module.kernels["k"];
    let counts = match launch(program, &memory, &SymbolTable::default(), &out.to_le_bytes(), shape, settings) {
        Ok(counts) => counts,
        Err(LaunchError::Fault(fault)) => return Err(*fault),
        Err(LaunchError::Refused(message)) => panic!("{message}"),
    };
    let (buffer, offset) = memory.range(out, 4 * WORDS).unwrap();
    Ok(((0..WORDS).map(|i| buffer.load(offset + 4 * i, 4) as u32).collect(), counts))
}

fn faulty(body: &str, threads: u32, settings: &Settings) -> Fault {
    match run_body(body, threads, settings) {
        Err(fault) => fault,
        Ok(_) => panic!("no fault in\n{body}"),
    }
}

fn output(body: &str, threads: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for order in Order::ALL {
        let settings = Settings { order, races: true, ..Settings::default() };
        let (out, _) = run_body(body, threads, &settings).unwrap_or_else(|fault| panic!("{order:?}: {fault}"));
        all.push(out);
    }
    assert!(all.iter().all(|out| *out == all[0]), "orders differ");
    all.swap_remove(0)
}

#[test]
fn bounds_and_alignment_of_global_memory() {
    let fault = faulty("st.global.u32 [%rd1+256], %r1;", 1, &Settings::default());
    assert_eq!(fault.kind, FaultKind::OutOfBounds);
    assert!(fault.to_string().contains("256 bytes into an allocation of 256"), "{fault}");
    assert_eq!((fault.block, fault.thread, fault.text.contains("st.global.u32")), ([0; 3], [0; 3], true));
    // Lanes and warps whose access is right do not vouch for the next.
    let fault = faulty("st.global.u32 [%rd3], %r1;", 65, &Settings::default());
    assert_eq!((fault.kind, fault.thread), (FaultKind::OutOfBounds, [64, 0, 0]));
    let fault = faulty("st.global.u32 [%rd1+-4], %r1;", 1, &Settings::default());
    assert!(fault.to_string().contains("4 bytes before an allocation"), "{fault}");
    assert_eq!(faulty("st.global.u32 [%rd1+2], %r1;", 1, &Settings::default()).kind, FaultKind::Misaligned);
    assert_eq!(
        faulty("st.global.v4.u32 [%rd1+8], {%r1, %r1, %r1, %r1};", 1, &Settings::default()).kind,
        FaultKind::Misaligned
    );
    assert_eq!(output("st.global.v4.u32 [%rd1+16], {%r1, %r1, %r1, %r1};", 1)[4..8], [0; 4]);
}

#[test]
fn the_thread_is_named() {
    let fault = faulty("setp.eq.u32 %p1, %r1, 37; @%p1 st.global.u32 [%rd1+1000], %r1;", 64, &Settings::default());
    assert_eq!(fault.thread, [37, 0, 0]);
}

#[test]
fn uninitialised_memory() {
    let read = "ld.global.u32 %r5, [%rd3]; st.global.u32 [%rd3], %r5;";
    assert_eq!(faulty(read, 1, &Settings::default()).kind, FaultKind::Uninitialised);
    let lax = Settings { strict: false, ..Settings::default() };
    assert_eq!(run_body(read, 1, &lax).unwrap().0[0], u32::MAX, "poison is NaN");
    let shared = "ld.shared.u32 %r5, [%r4]; st.global.u32 [%rd3], %r5;";
    assert_eq!(faulty(shared, 1, &Settings::default()).kind, FaultKind::Uninitialised);
    assert_eq!(output(&format!("st.shared.u32 [%r4], %r1; {shared}"), 4)[..4], [0, 1, 2, 3]);
}

#[test]
fn bounds_of_shared_memory() {
    let fault = faulty("st.shared.u32 [%r4], %r1;", 65, &Settings::default());
    assert_eq!((fault.kind, fault.thread), (FaultKind::OutOfBounds, [64, 0, 0]));
    assert_eq!(faulty("st.shared.u32 [%r3+2], %r1;", 1, &Settings::default()).kind, FaultKind::Misaligned);
}

/// Threads exchange values with their mirror images.
const EXCHANGE: &str = "st.shared.u32 [%r4], %r1; BARRIER sub.s32 %r6, 63, %r1; shl.b32 %r6, %r6, 2; \
                        add.s32 %r6, %r3, %r6; ld.shared.u32 %r7, [%r6]; st.global.u32 [%rd3], %r7;";

#[test]
fn a_missing_barrier_is_a_race() {
    let with = EXCHANGE.replace("BARRIER", "bar.sync 0;");
    let mirrored: Vec<u32> = (0..64).rev().collect();
    assert_eq!(output(&with, 64), mirrored);
    let without = EXCHANGE.replace("BARRIER", "");
    let watched = Settings { races: true, strict: false, ..Settings::default() };
    assert_eq!(faulty(&without, 64, &watched).kind, FaultKind::Race);
    // A barrier orders what was before it, and nothing after.
    assert_eq!(faulty(&format!("bar.sync 0; {without}"), 64, &watched).kind, FaultKind::Race);
    // Without the watch the order of threads shows it.
    let of = |order| run_body(&without, 64, &Settings { order, strict: false, ..Settings::default() }).unwrap().0;
    assert_ne!(of(Order::Ascending), of(Order::Descending));
}

#[test]
fn barriers_must_be_the_same_one() {
    let apart = "setp.lt.u32 %p1, %r1, 32; @%p1 bra A; bar.sync 0; bra B; A: bar.sync 0; B: st.global.u32 [%rd3], %r1;";
    assert_eq!(faulty(apart, 64, &Settings::default()).kind, FaultKind::BarrierDivergence);
    // Threads that have left do not count.
    let left = "setp.lt.u32 %p1, %r1, 32; @%p1 ret; bar.sync 0; st.global.u32 [%rd3], %r1;";
    assert_eq!(output(left, 64)[63], 63);
    // Barriers of two numbers of which none is complete.
    let two = "and.b32 %r5, %r1, 1; bar.sync %r5;";
    assert_eq!(faulty(two, 64, &Settings::default()).kind, FaultKind::Deadlock);
}

#[test]
fn masks_of_shuffles() {
    let own = "shfl.sync.bfly.b32 %r5, %r1, 1, 31, 1; st.global.u32 [%rd3], %r5;";
    assert_eq!(faulty(own, 32, &Settings::default()).kind, FaultKind::WrongMask);
    let waits = "setp.lt.u32 %p1, %r1, 16; @%p1 shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1; @%p1 bra E; bar.sync 0; E:";
    assert_eq!(faulty(waits, 32, &Settings::default()).kind, FaultKind::Deadlock);
    let all = "shfl.sync.bfly.b32 %r5, %r1, 3, 31, -1; st.global.u32 [%rd3], %r5;";
    assert_eq!(output(all, 32)[..5], [3, 2, 1, 0, 7]);
    let down = "shfl.sync.down.b32 %r5|%p1, %r1, 4, 31, -1; selp.u32 %r6, %r5, 99, %p1; st.global.u32 [%rd3], %r6;";
    assert_eq!(output(down, 32)[26..32], [30, 31, 99, 99, 99, 99]);
    // Halves of a warp in two branches, each with a mask of its own.
    let halves = "setp.lt.u32 %p1, %r1, 16; @%p1 bra A; shfl.sync.idx.b32 %r5, %r1, 20, 31, 0xffff0000; bra B; \
                  A: shfl.sync.idx.b32 %r5, %r1, 5, 31, 0x0000ffff; B: st.global.u32 [%rd3], %r5;";
    let out = output(halves, 32);
    assert!(out[..16].iter().all(|x| *x == 5) && out[16..32].iter().all(|x| *x == 20));
}

#[test]
fn votes_and_divergence() {
    let ballot = "and.b32 %r5, %r1, 1; setp.eq.u32 %p1, %r5, 1; vote.sync.ballot.b32 %r6, %p1, -1; \
                  vote.sync.any.pred %p2, %p1, -1; selp.u32 %r7, %r6, 0, %p2; st.global.u32 [%rd3], %r7;";
    assert_eq!(output(ballot, 32)[31], 0xaaaa_aaaa);
    // A loop that each lane leaves at another time: lanes join again.
    let ragged = "mov.u32 %r5, 0; L: add.s32 %r5, %r5, 1; setp.le.u32 %p1, %r5, %r1; @%p1 bra L; \
                  vote.sync.all.pred %p2, %p1, -1; selp.u32 %r6, 1, 0, %p2; add.s32 %r5, %r5, %r6; \
                  st.global.u32 [%rd3], %r5;";
    assert_eq!(output(ragged, 32)[..32], (1..33).collect::<Vec<u32>>());
}

#[test]
fn a_kernel_that_hangs_and_one_that_traps() {
    let settings = Settings { budget: 1000, ..Settings::default() };
    assert_eq!(faulty("L: bra L;", 1, &settings).kind, FaultKind::Hang);
    assert_eq!(faulty("trap;", 1, &Settings::default()).kind, FaultKind::Trap);
}

#[test]
fn asynchronous_copies_arrive_when_they_are_waited_for() {
    let copy = "st.global.u32 [%rd3], %r1; cp.async.ca.shared.global [%r4], [%rd3], 4; cp.async.commit_group; WAIT \
                ld.shared.u32 %r5, [%r4]; add.s32 %r5, %r5, 5; st.global.u32 [%rd3], %r5;";
    assert_eq!(output(&copy.replace("WAIT", "cp.async.wait_group 0;"), 8)[..3], [5, 6, 7]);
    assert_eq!(faulty(&copy.replace("WAIT", ""), 8, &Settings::default()).kind, FaultKind::Uninitialised);
}

#[test]
fn atomics_of_shared_and_global_memory() {
    let body = "mov.u32 %r5, 0; st.shared.u32 [%r3], %r5; bar.sync 0; atom.shared.add.u32 %r6, [%r3], 1; bar.sync 0; \
                ld.shared.u32 %r7, [%r3]; st.global.u32 [%rd3], %r7;";
    // All threads write the same value first: a race that the watch reports, and rightly.
    let settings = Settings { races: true, ..Settings::default() };
    assert_eq!(faulty(body, 64, &settings).kind, FaultKind::Race);
    assert_eq!(run_body(body, 64, &Settings::default()).unwrap().0[63], 64);
    let global = "setp.eq.u32 %p1, %r1, 0; mov.f32 %f1, 0f00000000; @%p1 st.global.f32 [%rd1], %f1; bar.sync 0; \
                  mov.f32 %f2, 0f3F800000; red.global.add.f32 [%rd1], %f2;";
    assert_eq!(f32::from_bits(run_body(global, 48, &Settings::default()).unwrap().0[0]), 48.0);
}

/// Fragments as the manual draws them, against a plain product of matrices.
#[test]
fn products_of_matrices() {
    // Lane l holds A(g, t), A(g+8, t), A(g, t+4), A(g+8, t+4) and B(t, g), B(t+4, g), with A(i, k) = 10 i + k and
    // B(k, j) = k - j; small whole numbers are exact in tf32.
    let body = "shr.u32 %r10, %r1, 2; and.b32 %r11, %r1, 3; \
        mad.lo.s32 %r12, %r10, 10, %r11; add.s32 %r13, %r12, 80; add.s32 %r14, %r12, 4; add.s32 %r15, %r12, 84; \
        sub.s32 %r16, %r11, %r10; add.s32 %r17, %r16, 4; \
        cvt.rn.f32.s32 %f1, %r12; cvt.rn.f32.s32 %f2, %r13; cvt.rn.f32.s32 %f3, %r14; cvt.rn.f32.s32 %f4, %r15; \
        cvt.rn.f32.s32 %f5, %r16; cvt.rn.f32.s32 %f6, %r17; mov.f32 %f7, 0f3F800000; \
        mov.b32 %r20, %f1; mov.b32 %r21, %f2; mov.b32 %r22, %f3; mov.b32 %r23, %f4; mov.b32 %r24, %f5; mov.b32 %r25, %f6; \
        mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f10, %f11, %f12, %f13}, {%r20, %r21, %r22, %r23}, \
        {%r24, %r25}, {%f7, %f7, %f7, %f7}; \
        cvt.rzi.s32.f32 %r30, REGISTER; st.global.u32 [%rd3], %r30;";
    for (register, (down, right)) in [(0, 0), (0, 1), (8, 0), (8, 1)].into_iter().enumerate() {
        let out = output(&body.replace("REGISTER", &format!("%f1{register}")), 32);
        for (lane, given) in out[..32].iter().enumerate() {
            let (row, column) = (lane as i32 / 4 + down, lane as i32 % 4 * 2 + right);
            let expected: i32 = 1 + (0..8).map(|k| (10 * row + k) * (k - column)).sum::<i32>();
            assert_eq!(*given as i32, expected, "row {row}, column {column}");
        }
    }
}

#[test]
fn what_is_executed_is_counted() {
    let body = "mov.f32 %f1, 0f3F800000; fma.rn.f32 %f2, %f1, %f1, %f1; ex2.approx.ftz.f32 %f3, %f2; \
                lg2.approx.f32 %f4, %f3; st.global.f32 [%rd3], %f4;";
    let (out, counts) = run_body(body, 40, &Settings::default()).unwrap();
    assert_eq!(f32::from_bits(out[0]), 2.0);
    assert_eq!((counts.launches, counts.fma, counts.ex2, counts.lg2), (1, 40, 40, 40));
    assert_eq!((counts.global_store_bytes, counts.global_load_bytes), (160, 0));
}

#[test]
fn what_is_not_understood_is_named_with_its_line() {
    let text = ".version 8.2\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\nfrobnicate.b32 %r1;\nret;\n}\n";
    let message = Module::parse(text).unwrap_err().to_string();
    assert!(message.contains("line 6") && message.contains("frobnicate"), "{message}");
}
