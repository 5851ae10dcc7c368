//! What flows need.

use super::*;

#[test]
fn panels_are_transposed() {
    for (isa, channels, width) in panels(false) {
        let from = uniforms(channels * width, 1);
        let mut to = vec![f32::NAN; from.len()];
        isa.dispatch(Transpose { from: &from, to: &mut to, width });
        for (at, to) in to.into_iter().enumerate() {
            assert_eq!(to, from[at % channels * width + at / channels]);
        }
    }
}

#[test]
fn quotients_leave_out_what_is_not_trusted() {
    for (isa, channels, width) in panels(false) {
        let (mut flow, mut sum) = (uniforms(channels * width, 2), coefficients(channels * width));
        for untrusted in [None, Some(0), Some(flow.len() / 2), Some(flow.len() - 1)] {
            if let Some(at) = untrusted {
                sum[at] = 1e-31;
                flow[at] = 0.5;
            }
            let mut q = vec![f32::NAN; flow.len()];
            let left = isa.dispatch(Quotients { flow: &flow, sum: &sum, q: &mut q });
            assert_eq!(left, untrusted.is_some());
            for at in 0..q.len() {
                assert_eq!(q[at], if sum[at] < SMALLEST_SUM { 0.0 } else { flow[at] / sum[at] });
            }
        }
        // Without flow nothing is left out.
        flow.fill(0.0);
        let mut q = vec![f32::NAN; flow.len()];
        assert!(!isa.dispatch(Quotients { flow: &flow, sum: &sum, q: &mut q }));
    }
}

fn coefficients(count: usize) -> Vec<f32> {
    uniforms(count, 3).into_iter().map(|u| u + 0.5).collect()
}

#[test]
fn flows_are_scaled() {
    for (isa, channels, width) in panels(false) {
        let (mut e, given) = (uniforms(channels * width, 4), uniforms(channels * width, 5));
        // Of some no more is left than counts as none.
        e.iter_mut().step_by(5).for_each(|e| *e *= 1e-31);
        let mut flow = given.clone();
        isa.dispatch(Scale { e: &e, flow: &mut flow });
        for ((flow, e), given) in flow.iter().zip(&e).zip(&given) {
            assert_eq!(*flow, if e * given < SMALLEST_FLOW { 0.0 } else { e * given });
        }
        assert!(flow.contains(&0.0));
    }
}
