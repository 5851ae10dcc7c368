//! The maximum-likelihood step of discretized logistic distributions.
//!
//! With `a = 1/s` and `b = (μ − o)/s`, o any origin, a boundary is `t_k = a (k − ½ − o) − b`, and the log-likelihood of
//! counts `n_x`,
//!
//! `Σ_k [n_(k−1) log σ(t_k) + n_k log σ(−t_k)] + (n_1 + … + n_(last−1)) log(1 − e^(−a))`,
//!
//! is concave in (a, b), as that of ordered regression is (Burridge, 1981; Pratt, 1981). What is legal is convex too: a
//! quadrangle, whose corners are the extreme means and scales. So there is one maximum, and Newton's method, each step the
//! best of the quadratic model within the quadrangle, and shortened where it might lose, comes to it and never goes down.

use super::boundaries::each_boundary;

/// The smallest and the largest legal parameters.
pub(super) struct Bounds {
    pub(super) mean: [f64; 2],
    pub(super) scale: [f64; 2],
}

/// The last step is one that promises less than this, nats a count: it leaves an error of about 1e-10 in mean and scale.
const LAST: f64 = 1e-10;

/// A step that promises less than this is none.
const NOTHING: f64 = 1e-22;

/// More than are ever needed: from a start far away some ten.
const MOST_STEPS: usize = 60;

type Point = [f64; 2];

/// Moves a mean and a scale to where the log-likelihood of counts, a pseudocount added to each, is largest; they stay where
/// there are none.
pub(super) fn fit(p: &mut [f64], counts: &[f64], pseudocount: f64, bounds: &Bounds) {
    let total = ndarray::aview1(counts).sum() + pseudocount * counts.len() as f64;
    if !(total > 0.0 && total.is_finite()) {
        return;
    }
    let Bounds { mean, scale } = bounds;
    let origin = p[0].clamp(mean[0], mean[1]);
    let likelihood = Likelihood { counts, pseudocount, origin };
    let [steep, flat] = scale.map(|scale| 1.0 / scale);
    let corner = |a: f64, mean: f64| [a, a * (mean - origin)];
    let corners = [corner(flat, mean[0]), corner(steep, mean[0]), corner(steep, mean[1]), corner(flat, mean[1])];
    let mut at: Point = [1.0 / p[1].clamp(scale[0], scale[1]), 0.0];
    // Of the place, where it is known.
    let mut value = None;
    for _ in 0..MOST_STEPS {
        let here = likelihood.model(at);
        let step = here.best_step(at, &corners);
        let promised = here.gain(step);
        if promised.is_nan() || promised <= NOTHING * total {
            break;
        }
        if likelihood.is_short(at, step) {
            (at, value) = (part(at, 1.0, step), None);
        } else {
            let before = value.unwrap_or_else(|| likelihood.value(at));
            let Some((next, after)) = likelihood.search(at, before, step, here.slope(step)) else { break };
            (at, value) = (next, Some(after));
        }
        if promised < LAST * total {
            break;
        }
    }
    p[0] = (origin + at[1] / at[0]).clamp(mean[0], mean[1]);
    p[1] = (1.0 / at[0]).clamp(scale[0], scale[1]);
}

struct Likelihood<'a> {
    counts: &'a [f64],
    pseudocount: f64,
    origin: f64,
}

/// A function of (a, b) near a point: its gradient, and second derivatives by aa, ab and bb.
struct Model {
    gradient: Point,
    hessian: [f64; 3],
}

/// `1/(e^a − 1)`: the derivative of `log(1 − e^(−a))`.
fn odds(a: f64) -> f64 {
    1.0 / a.exp_m1()
}

impl Likelihood<'_> {
    /// Counts, with the pseudocount, of values that are neither the first nor the last.
    fn between(&self) -> f64 {
        self.counts[1..self.counts.len() - 1].iter().map(|n| n + self.pseudocount).sum()
    }

    /// Visits the boundaries: the counts below and above, `t`, `σ(t)`, `σ(−t)`, and how far it is from the origin.
    fn each(&self, [a, b]: Point, mut visit: impl FnMut([f64; 2], [f64; 3], f64)) {
        each_boundary(self.counts.len(), self.origin + b / a, 1.0 / a, |k, t, p, q| {
            let counts = [self.counts[k - 1] + self.pseudocount, self.counts[k] + self.pseudocount];
            visit(counts, [t, p, q], k as f64 - 0.5 - self.origin);
        });
    }

    fn model(&self, at: Point) -> Model {
        let (mut gradient, mut hessian) = ([0.0; 2], [0.0; 3]);
        self.each(at, |[below, above], [_, p, q], x| {
            let (slope, curve) = (below * q - above * p, (below + above) * p * q);
            gradient[0] += slope * x;
            gradient[1] -= slope;
            hessian[0] -= curve * x * x;
            hessian[1] += curve * x;
            hessian[2] -= curve;
        });
        let (between, odds) = (self.between(), odds(at[0]));
        gradient[0] += between * odds;
        hessian[0] -= between * odds * (1.0 + odds);
        Model { gradient, hessian }
    }

    fn value(&self, at: Point) -> f64 {
        let mut value = self.between() * (-(-at[0]).exp_m1()).ln();
        self.each(at, |[below, above], [t, p, q], _| {
            value += below * t.min(0.0) - above * t.max(0.0) + (below + above) * (-p.min(q)).ln_1p();
        });
        value
    }

    /// Whether a step to a maximum of the quadratic model is so short that it cannot lose.
    ///
    /// Along it the third derivative of each term is at most m times the second, m the change of its t (Bach, 2010), or
    /// of a times coth(a/2). Such a function gains at least what the slope promises, less (e^m − m − 1)/m² times the
    /// curvature, which the slope is not smaller than. For m = 1.7 the factor is 0.96.
    fn is_short(&self, at: Point, step: Point) -> bool {
        let by = |boundary: f64| (step[0] * (boundary - self.origin) - step[1]).abs();
        let least = at[0].min(at[0] + step[0]);
        let width = step[0].abs() * (1.0 + 2.0 * odds(least));
        by(0.5).max(by(self.counts.len() as f64 - 1.5)).max(width) <= 1.7
    }

    /// The first of the whole step, a half, a quarter … that gains a twentieth of what the slope promises, but for rounding:
    /// where it ends, and the value there.
    fn search(&self, at: Point, before: f64, step: Point, slope: f64) -> Option<(Point, f64)> {
        (0..50).map(|halvings| 0.5_f64.powi(halvings)).find_map(|share| {
            let next = part(at, share, step);
            let after = self.value(next);
            (after >= before + 0.05 * share * slope - 4.0 * f64::EPSILON * before.abs()).then_some((next, after))
        })
    }
}

/// A point and a part of a step.
fn part(at: Point, share: f64, step: Point) -> Point {
    [at[0] + share * step[0], at[1] + share * step[1]]
}

impl Model {
    fn slope(&self, d: Point) -> f64 {
        self.gradient[0] * d[0] + self.gradient[1] * d[1]
    }

    fn curve(&self, d: Point, e: Point) -> f64 {
        let [aa, ab, bb] = self.hessian;
        aa * d[0] * e[0] + ab * (d[0] * e[1] + d[1] * e[0]) + bb * d[1] * e[1]
    }

    /// What the quadratic model gains by a step.
    fn gain(&self, d: Point) -> f64 {
        self.slope(d) + 0.5 * self.curve(d, d)
    }

    /// The step from `at` to where the quadratic model is largest within the quadrangle.
    fn best_step(&self, at: Point, corners: &[Point; 4]) -> Point {
        let ([aa, ab, bb], [ga, gb]) = (self.hessian, self.gradient);
        let determinant = aa * bb - ab * ab;
        if determinant > 1e-12 * aa * bb {
            let step = [(ab * gb - bb * ga) / determinant, (ab * ga - aa * gb) / determinant];
            if inside([at[0] + step[0], at[1] + step[1]], corners) {
                return step;
            }
        }
        // A concave function whose maximum is not inside is largest on an edge; so is one that is flat in some direction.
        let edges = (0..4).map(|side| {
            let (from, to) = (corners[side], corners[(side + 1) % 4]);
            let (start, edge) = ([from[0] - at[0], from[1] - at[1]], [to[0] - from[0], to[1] - from[1]]);
            let (slope, curve) = (self.slope(edge) + self.curve(start, edge), self.curve(edge, edge));
            let share = if curve < 0.0 { (-slope / curve).clamp(0.0, 1.0) } else { f64::from(slope > 0.0) };
            [start[0] + share * edge[0], start[1] + share * edge[1]]
        });
        edges.fold([0.0; 2], |best, step| if self.gain(step) > self.gain(best) { step } else { best })
    }
}

/// Whether a point is within a quadrangle whose corners are given counterclockwise.
fn inside(point: Point, corners: &[Point; 4]) -> bool {
    (0..4).all(|side| {
        let (from, to) = (corners[side], corners[(side + 1) % 4]);
        (to[0] - from[0]) * (point[1] - from[1]) - (to[1] - from[1]) * (point[0] - from[0]) >= 0.0
    })
}
