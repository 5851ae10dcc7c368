//! The maximum-likelihood step of discretized logistic distributions.
//!
//! With `a = 1/s` and `b = (μ − o)/s`, o any origin, a boundary is `t_k = a (k − ½ − o) − b`, and the log-likelihood of
//! counts `n_x`,
//!
//! `Σ_k [n_(k−1) log σ(t_k) + n_k log σ(−t_k)] + (n_1 + … + n_(last−1)) log(1 − e^(−a))`,
//!
//! is concave in (a, b), as that of ordered regression is (Burridge, 1981; Pratt, 1981). What is legal is convex too: a
//! quadrangle, whose corners are the extreme means and scales. So there is one maximum, and Newton's method with a line
//! search, each step the best of the quadratic model within the quadrangle, comes to it and never goes down.

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
    let mut here = likelihood.model(at);
    for _ in 0..MOST_STEPS {
        let step = here.best_step(at, &corners);
        let promised = here.gain(step);
        if promised.is_nan() || promised <= NOTHING * total {
            break;
        }
        let shorter = (0..50).map(|halvings| 0.5_f64.powi(halvings)).find_map(|share| {
            let next = [at[0] + share * step[0], at[1] + share * step[1]];
            let there = likelihood.model(next);
            // A twentieth of what the slope promises, but for rounding.
            let enough = here.value + 0.05 * share * here.slope(step) - 4.0 * f64::EPSILON * here.value.abs();
            (there.value >= enough).then_some((next, there))
        });
        let Some(found) = shorter else { break };
        (at, here) = found;
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

/// A function of (a, b) near a point: its value, gradient, and second derivatives by aa, ab and bb.
struct Model {
    value: f64,
    gradient: Point,
    hessian: [f64; 3],
}

impl Likelihood<'_> {
    fn model(&self, [a, b]: Point) -> Model {
        let (mut value, mut gradient, mut hessian) = (0.0, [0.0; 2], [0.0; 3]);
        for (k, pair) in self.counts.windows(2).enumerate() {
            let (below, above) = (pair[0] + self.pseudocount, pair[1] + self.pseudocount);
            let both = below + above;
            if both == 0.0 {
                continue;
            }
            let x = k as f64 + 0.5 - self.origin;
            let t = a * x - b;
            // σ(−|t|) from e^(−|t|), which does not overflow.
            let small = (-t.abs()).exp();
            let (near, far) = (1.0 / (1.0 + small), small / (1.0 + small));
            let (p, q) = if t >= 0.0 { (near, far) } else { (far, near) };
            value += below * t.min(0.0) - above * t.max(0.0) - both * small.ln_1p();
            let (slope, curve) = (below * q - above * p, both * p * q);
            gradient[0] += slope * x;
            gradient[1] -= slope;
            hessian[0] -= curve * x * x;
            hessian[1] += curve * x;
            hessian[2] -= curve;
        }
        // e^a − 1 and its inverse, for any a.
        let between: f64 = self.counts[1..self.counts.len() - 1].iter().map(|n| n + self.pseudocount).sum();
        let odds = 1.0 / a.exp_m1();
        value += between * (-(-a).exp_m1()).ln();
        gradient[0] += between * odds;
        hessian[0] -= between * odds * (1.0 + odds);
        Model { value, gradient, hessian }
    }
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
