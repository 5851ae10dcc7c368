// Steps and gradients of discretized logistic leaves, in float64: the formulas of convpc-core's discretized_logistic/*.rs. A warp
// takes a leaf, its lanes stride over the boundaries between values. What is the same in all lanes they all compute.
#include "params.h"
#include "update.cuh"
#include "warp.cuh"

namespace {

__device__ __forceinline__ double infinity() { return __longlong_as_double(0x7ff0000000000000ll); }

__device__ __forceinline__ double clamp(double x, double least, double most) { return fmin(fmax(x, least), most); }

// The boundary between the values k - 1 and k.
struct Boundary {
    double t, below, above;  // σ(t), σ(-t), both with all their digits

    __device__ __forceinline__ Boundary(uint32_t k, double mean, double inverse) : t((k - 0.5 - mean) * inverse) {
        const double small = exp(-fabs(t)), near = 1.0 / (1.0 + small), far = small * near;
        below = t > 0.0 ? near : far;
        above = t > 0.0 ? far : near;
    }
};

// The probability of a value.
__device__ __forceinline__ double probability(uint32_t x, uint32_t n, double mean, double scale) {
    const double inverse = 1.0 / scale;
    double q = x == 0 || x == n - 1 ? 1.0 : -expm1(-inverse);
    if (x > 0) q *= Boundary(x, mean, inverse).above;
    if (x < n - 1) q *= Boundary(x + 1, mean, inverse).below;
    return q;
}

// 1 / (e^a - 1): the derivative of log(1 - e^(-a)).
__device__ __forceinline__ double odds(double a) { return 1.0 / expm1(a); }

struct Point {
    double a, b;
};

__device__ __forceinline__ Point part(Point at, double share, Point step) {
    return {at.a + share * step.a, at.b + share * step.b};
}

// A function of (a, b) near a point: its gradient and second derivatives.
struct Model {
    double ga, gb, aa, ab, bb;

    __device__ __forceinline__ double slope(Point d) const { return ga * d.a + gb * d.b; }

    __device__ __forceinline__ double curve(Point d, Point e) const {
        return aa * d.a * e.a + ab * (d.a * e.b + d.b * e.a) + bb * d.b * e.b;
    }

    __device__ __forceinline__ double gain(Point d) const { return slope(d) + 0.5 * curve(d, d); }

    // The step from `at` to where the quadratic model is largest within the quadrangle, whose corners go counterclockwise.
    __device__ Point best_step(Point at, const Point (&corners)[4]) const {
        const double determinant = aa * bb - ab * ab;
        if (determinant > 1e-12 * aa * bb) {
            const Point step = {(ab * gb - bb * ga) / determinant, (ab * ga - aa * gb) / determinant};
            const Point end = part(at, 1.0, step);
            bool inside = true;
#pragma unroll
            for (uint32_t side = 0; side < 4; ++side) {
                const Point from = corners[side], to = corners[(side + 1) % 4];
                inside = inside && (to.a - from.a) * (end.b - from.b) - (to.b - from.b) * (end.a - from.a) >= 0.0;
            }
            if (inside) return step;
        }
        // A concave function whose maximum is not inside is largest on an edge; so is one that is flat in some direction.
        Point best = {0.0, 0.0};
#pragma unroll
        for (uint32_t side = 0; side < 4; ++side) {
            const Point from = corners[side], to = corners[(side + 1) % 4];
            const Point start = {from.a - at.a, from.b - at.b}, edge = {to.a - from.a, to.b - from.b};
            const double rise = slope(edge) + curve(start, edge), bend = curve(edge, edge);
            const double share = bend < 0.0 ? clamp(-rise / bend, 0.0, 1.0) : (rise > 0.0 ? 1.0 : 0.0);
            const Point step = part(start, share, edge);
            if (gain(step) > gain(best)) best = step;
        }
        return best;
    }
};

// The log-likelihood of counts of n values.
struct Likelihood {
    const double *counts;
    uint32_t n;
    double pseudocount, origin;
    double between;  // counts of values that are neither the first nor the last

    __device__ __forceinline__ double count(uint32_t x) const { return counts[x] + pseudocount; }

    __device__ Model model(Point at) const {
        const double mean = origin + at.b / at.a;
        Model m = {0.0, 0.0, 0.0, 0.0, 0.0};
        for (uint32_t k = 1 + threadIdx.x % 32; k < n; k += 32) {
            const Boundary it(k, mean, at.a);
            const double below = count(k - 1), above = count(k), x = k - 0.5 - origin;
            const double slope = below * it.above - above * it.below, curve = (below + above) * it.below * it.above;
            m.ga += slope * x;
            m.gb -= slope;
            m.aa -= curve * x * x;
            m.ab += curve * x;
            m.bb -= curve;
        }
        const double o = odds(at.a);
        return {warp_sum(m.ga) + between * o, warp_sum(m.gb), warp_sum(m.aa) - between * o * (1.0 + o), warp_sum(m.ab),
                warp_sum(m.bb)};
    }

    __device__ double value(Point at) const {
        const double mean = origin + at.b / at.a;
        double sum = 0.0;
        for (uint32_t k = 1 + threadIdx.x % 32; k < n; k += 32) {
            const Boundary it(k, mean, at.a);
            const double below = count(k - 1), above = count(k);
            sum += below * fmin(it.t, 0.0) - above * fmax(it.t, 0.0) + (below + above) * log1p(-fmin(it.below, it.above));
        }
        return warp_sum(sum) + between * log(-expm1(-at.a));
    }

    // Whether a step to a maximum of the quadratic model is so short that it cannot lose.
    __device__ __forceinline__ bool is_short(Point at, Point step) const {
        const double first = fabs(step.a * (0.5 - origin) - step.b), last = fabs(step.a * (n - 1.5 - origin) - step.b);
        const double width = fabs(step.a) * (1.0 + 2.0 * odds(fmin(at.a, at.a + step.a)));
        return fmax(fmax(first, last), width) <= 1.7;
    }
};

// The parameters of a leaf, and what they may be.
struct Logistic {
    double mean, scale;
};

struct Bounds {
    double least_mean, most_mean, least_scale, most_scale;

    __device__ __forceinline__ Bounds(uint32_t n, double minimum_std)
        : least_mean(-4.0 * n), most_mean(5.0 * n), most_scale(4.0 * n) {
        // The standard deviation is π/√3 scales.
        least_scale = clamp(minimum_std * 0.55132889542179204, 0.05, most_scale);
    }
};

// Moves a mean and a scale to where the log-likelihood of counts, a pseudocount added to each, is largest. False where there are
// none.
__device__ bool fit(Logistic &it, const double *counts, uint32_t n, double pseudocount, const Bounds &bounds) {
    const double total = sum_of(counts, n) + pseudocount * n;
    if (!(total > 0.0 && total < infinity())) return false;
    const double origin = clamp(it.mean, bounds.least_mean, bounds.most_mean);
    const Likelihood likelihood = {counts, n, pseudocount, origin, sum_of(counts + 1, n - 2) + pseudocount * (n - 2)};
    const double steep = 1.0 / bounds.least_scale, flat = 1.0 / bounds.most_scale;
    const double low = bounds.least_mean - origin, high = bounds.most_mean - origin;
    const Point corners[4] = {{flat, flat * low}, {steep, steep * low}, {steep, steep * high}, {flat, flat * high}};
    Point at = {1.0 / clamp(it.scale, bounds.least_scale, bounds.most_scale), 0.0};
    for (uint32_t newton = 0; newton < 60; ++newton) {
        const Model here = likelihood.model(at);
        const Point step = here.best_step(at, corners);
        const double promised = here.gain(step);
        // A step that promises less is none.
        if (!(promised > 1e-22 * total)) break;
        double share = 1.0;
        if (!likelihood.is_short(at, step)) {
            // The first of the whole, a half, a quarter … that gains a twentieth of what the slope promises, but for rounding.
            const double before = likelihood.value(at), slope = here.slope(step);
            uint32_t halvings = 0;
            for (; halvings < 50; ++halvings, share *= 0.5) {
                const double after = likelihood.value(part(at, share, step));
                if (after >= before + 0.05 * share * slope - 8.9e-16 * fabs(before)) break;
            }
            if (halvings == 50) break;
        }
        at = part(at, share, step);
        // It leaves an error of about 1e-10 in mean and scale.
        if (promised < 1e-10 * total) break;
    }
    it.mean = clamp(origin + at.b / at.a, bounds.least_mean, bounds.most_mean);
    it.scale = clamp(1.0 / at.a, bounds.least_scale, bounds.most_scale);
    return true;
}

// The derivatives by the mean, in scales, and by the logarithm of the scale.
__device__ Point gradient(Logistic it, const double *counts, uint32_t n) {
    const double inverse = 1.0 / it.scale;
    Point g = {0.0, 0.0};
    double between = 0.0;
    for (uint32_t k = 1 + threadIdx.x % 32; k < n; k += 32) {
        const Boundary boundary(k, it.mean, inverse);
        const double slope = counts[k - 1] * boundary.above - counts[k] * boundary.below;
        g.a -= slope;
        g.b -= slope * boundary.t;
        if (k < n - 1) between += counts[k];
    }
    return {warp_sum(g.a), warp_sum(g.b) - warp_sum(between) * inverse * odds(inverse)};
}

// A leaf's parameters, and the table that they make: probabilities, their logarithms, that of the largest.
__device__ void write(const ConvpcLeafUpdate &p, uint64_t leaf, Logistic it) {
    const uint32_t n = p.values, lane = threadIdx.x % 32;
    float *leaves = p.leaves + leaf * (n + 1);
    float mode = -(float)infinity();
    const double inverse = 1.0 / it.scale, width = log(-expm1(-inverse));
    for (uint32_t x = lane; x < n; x += 32) {
        // log σ(t) = min(t, 0) - log(1 + e^(-|t|))
        double density = x == 0 || x == n - 1 ? 0.0 : width;
        if (x > 0) {
            const double t = (x - 0.5 - it.mean) * inverse;
            density -= fmax(t, 0.0) + log1p(exp(-fabs(t)));
        }
        if (x < n - 1) {
            const double t = (x + 0.5 - it.mean) * inverse;
            density += fmin(t, 0.0) - log1p(exp(-fabs(t)));
        }
        p.probabilities[leaf * n + x] = probability(x, n, it.mean, it.scale);
        leaves[x] = (float)density;
        mode = fmaxf(mode, leaves[x]);
    }
    mode = warp_max(mode);
    if (lane != 0) return;
    leaves[n] = mode;
    p.theta[2 * leaf] = it.mean;
    p.theta[2 * leaf + 1] = it.scale;
}

__device__ __forceinline__ Logistic read(const ConvpcLeafUpdate &p, uint64_t leaf) {
    const Logistic it = {p.theta[2 * leaf], p.theta[2 * leaf + 1]};
    // Lane 0 writes there later.
    __syncwarp();
    return it;
}

}  // namespace

// The maximum-likelihood step on counts, blended with what was expected; or with the expected counts of its result.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) step_logistic(const ConvpcLeafUpdate p) {
    const uint64_t leaf = warp_number();
    if (leaf >= p.leaf_count) return;
    const uint32_t n = p.values, lane = threadIdx.x % 32;
    double *counts = p.counts + leaf * (n + 1) + 1;
    const double *probabilities = p.probabilities + leaf * n;
    const double before = expected(p.blend, leaf);
    const Logistic old = read(p, leaf);
    Logistic it = old;
    for (uint32_t x = lane; x < n; x += 32) counts[x] = p.blend.counts * counts[x] + before * probabilities[x];
    __syncwarp();
    if (!fit(it, counts, n, p.pseudocount, Bounds(n, p.minimum_std))) return;
    if (p.blend.kind == CONVPC_BLEND_PARAMETERS) {
        const double step = p.blend.step;
        __syncwarp();
        for (uint32_t x = lane; x < n; x += 32)
            counts[x] = (1.0 - step) * probabilities[x] + step * probability(x, n, it.mean, it.scale);
        __syncwarp();
        it = old;
        fit(it, counts, n, 0.0, Bounds(n, 0.0));
    }
    write(p, leaf, it);
}

// A step of Adam on the mean, in scales, and on the logarithm of the scale; they stay within what is legal.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) ascend_logistic(const ConvpcLeafUpdate p) {
    const uint64_t leaf = warp_number();
    if (leaf >= p.leaf_count) return;
    const bool first = threadIdx.x % 32 == 0;
    Logistic it = read(p, leaf);
    const Point g = gradient(it, p.counts + leaf * (p.values + 1) + 1, p.values);
    if (p.ascent.squares) {
        if (first) p.ascent.squares[leaf] = g.a * g.a + g.b * g.b;
        return;
    }
    const double scale = slope(p.ascent);
    double by_mean = 0.0, by_scale = 0.0;
    if (first) {
        by_mean = it.scale * ascent(p.ascent, 2 * leaf, g.a * scale);
        by_scale = ascent(p.ascent, 2 * leaf + 1, g.b * scale);
    }
    by_mean = __shfl_sync(0xffffffffu, by_mean, 0);
    by_scale = __shfl_sync(0xffffffffu, by_scale, 0);
    const Bounds bounds(p.values, p.minimum_std);
    it.mean = clamp(it.mean + by_mean, bounds.least_mean, bounds.most_mean);
    it.scale = clamp(it.scale * exp(by_scale), bounds.least_scale, bounds.most_scale);
    write(p, leaf, it);
}

// With respect to the mean and the logarithm of the scale.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) gradient_logistic(const ConvpcLeafUpdate p) {
    const uint64_t leaf = warp_number();
    if (leaf >= p.leaf_count) return;
    const Logistic it = read(p, leaf);
    const Point g = gradient(it, p.counts + leaf * (p.values + 1) + 1, p.values);
    if (threadIdx.x % 32 != 0) return;
    p.gradient[2 * leaf] = g.a / it.scale;
    p.gradient[2 * leaf + 1] = g.b;
}
