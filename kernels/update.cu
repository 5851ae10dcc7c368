// Parameters from expected counts, and gradients, in float64: the formulas of convpc-core's em.rs, mini_batch.rs, adam.rs and
// family/*.rs.
//
// A sum's weights are a row of its matrices; a warp takes a row. Leaves of few parameters are a thread's, tables a warp's.
// What saw no flow stays as it is.
#include "numbers.cuh"
#include "params.h"
#include "update.cuh"
#include "warp.cuh"

namespace {

// New values of a distribution over n: (counts · n_i + before · p_i + pseudocount) / total.
struct Mixture {
    double counts, before, pseudocount, total;

    __device__ __forceinline__ double operator()(double n, double p) const {
        return (counts * n + before * p + pseudocount) / total;
    }
};

// `seen` is the sum of the n counts of distribution `at`, `whole` that of its values, which are what they were before.
__device__ __forceinline__ Mixture mixture(const ConvpcBlend &b, uint64_t at, double seen, double whole, double pseudocount,
                                           uint32_t n) {
    const double before = b.used ? b.expected * b.used[at] / whole : 0.0;
    const double total = b.counts * seen + before * whole + pseudocount * n;
    if (b.kind == CONVPC_BLEND_COUNTS || !(total > 0.0)) return {b.counts, before, pseudocount, total};
    return {b.step * b.counts / total, (1.0 - b.step) / whole, b.step * pseudocount / total, 1.0};
}

// Those of core: the smallest deviation of a Normal, and the share of a mean square below which a variance is rounding.
constexpr double SMALLEST_STD = 1e-30, LARGEST = CONVPC_LARGEST_VALUE, VARIANCE_ROUNDING = 1.0 / (1ull << 46);
// Those of core: what a step leaves of a weight that was not zero, and the largest logit of a success.
constexpr double SMALLEST_WEIGHT = 1e-30, LARGEST_LOGIT = 30.0;

__device__ __forceinline__ double number(float w) { return exact_weight(w); }
__device__ __forceinline__ double number(double q) { return q; }

__device__ __forceinline__ double not_a_number() { return __longlong_as_double(0x7ff8000000000000ll); }

// Moves the logits of distribution `at` over n, p / whole, up the gradient n_i - p_i · share; a warp takes it. The new
// probabilities go to `write`; one of zero stays, none becomes zero. False where none was written.
template <class T, class Write>
__device__ __forceinline__ bool ascend(const ConvpcAscent &a, uint64_t at, uint32_t n, double *counts, const T *p,
                                       double whole, double share, Write write) {
    const uint32_t lane = threadIdx.x % 32;
    if (a.squares) {
        double squares = 0.0;
        for (uint32_t i = lane; i < n; i += 32) {
            const double g = counts[i] - number(p[i]) * share;
            squares += g * g;
        }
        squares = warp_sum(squares);
        if (lane == 0) a.squares[at] = squares;
        return false;
    }
    const double scale = slope(a);
    double largest = __longlong_as_double(0xfff0000000000000ll);
    for (uint32_t i = lane; i < n; i += 32) {
        double by = ascent(a, at * n + i, (counts[i] - number(p[i]) * share) * scale);
        if (p[i] == (T)0) continue;
        // exp(keep log p + by) = p exp((keep - 1) log p + by)
        if (a.keep != 1.0) by += (a.keep - 1.0) * log(number(p[i]) / whole);
        counts[i] = by;
        largest = fmax(largest, by);
    }
    largest = warp_max(largest);
    double sum = 0.0;
    for (uint32_t i = lane; i < n; i += 32)
        if (p[i] != (T)0) sum += number(p[i]) / whole * exp(counts[i] - largest);
    sum = warp_sum(sum);
    if (!(sum > 0.0)) return false;
    for (uint32_t i = lane; i < n; i += 32)
        if (p[i] != (T)0) write(i, fmax(number(p[i]) / whole * exp(counts[i] - largest) / sum, SMALLEST_WEIGHT));
    return true;
}

// Marks a distribution whose step was too long.
__device__ __forceinline__ void stray(const ConvpcAscent &a, double *first_count) {
    *first_count = not_a_number();
    *a.astray = 1;
}

__device__ __forceinline__ double legal_mean(double mean) { return fmin(fmax(mean, -LARGEST), LARGEST); }

__device__ __forceinline__ double legal_std(double std, double minimum) {
    return fmin(fmax(fmax(std, minimum), SMALLEST_STD), LARGEST);
}

__device__ __forceinline__ double variance(double square, double shift) {
    return fmax(square - shift * shift, square * VARIANCE_ROUNDING);
}

// A Normal's parameters; lay_location_scale makes coefficients of them.
__device__ __forceinline__ void write_location_scale(const ConvpcLeafUpdate &p, uint64_t leaf, double mean, double std) {
    p.theta[2 * leaf] = mean;
    p.theta[2 * leaf + 1] = std;
}

// A binomial's probability of a success, and its coefficients.
__device__ __forceinline__ void write_binomial(const ConvpcLeafUpdate &p, uint64_t leaf, double q) {
    const double n = p.trials, eta0 = log(q), eta1 = log1p(-q);
    const double mode = fmin(fmax(ceil((n + 1.0) * q) - 1.0, 0.0), n);
    // 0 · (-inf) = 0
    const double base = p.log_base[(uint32_t)mode];
    const float high = (float)base;
    double density = base;
    if (mode > 0.0) density += eta0 * mode;
    if (mode < n) density += eta1 * (n - mode);
    p.theta[leaf] = q;
    reinterpret_cast<float4 *>(p.leaves)[leaf] =
        make_float4((float)mode, (float)(eta0 - eta1), (float)(density - (base - high)), high);
}

}  // namespace

// Σ_d used(d) · w[d][c]: a thread takes an input.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) top_down(const ConvpcTopDown p) {
    const uint32_t feature = blockIdx.x % p.features, repetition = blockIdx.x / p.features;
    const uint32_t parent = p.parents[repetition * p.features + feature];
    const bool there = parent != CONVPC_NO_FEATURE;
    const double *above = p.above ? p.above + (uint64_t)(repetition * p.above_features + parent) * p.outputs : nullptr;
    const float *w = p.linear + (uint64_t)(p.groups[feature] * p.repetitions + repetition) * p.outputs * p.inputs;
    for (uint32_t i = threadIdx.x; i < (p.mixes ? p.inputs * p.outputs : p.inputs); i += CONVPC_THREADS) {
        if (p.mixes) {
            const uint32_t r = i / p.outputs, c = i % p.outputs;
            p.below[(uint64_t)(r * p.features + feature) * p.outputs + c] =
                there ? (above ? above[c] : 1.0) * exact_weight(w[c * p.inputs + r]) : 0.0;
            continue;
        }
        double sum = 0.0;
        for (uint32_t d = 0; there && d < p.outputs; ++d) sum += (above ? above[d] : 1.0) * exact_weight(w[d * p.inputs + i]);
        p.below[(uint64_t)(repetition * p.features + feature) * p.inputs + i] = sum;
    }
}

// A thread takes a row's channel.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) pool_top_down(const ConvpcPoolTopDown p) {
    const uint64_t at = thread_number();
    if (at >= (uint64_t)p.rows * p.repetitions * p.channels) return;
    const uint32_t channel = at % p.channels, repetition = at / p.channels % p.repetitions;
    const uint32_t row = (uint32_t)(at / p.channels / p.repetitions);
    double sum = 0.0;
    for (uint32_t place = p.rows_of ? 0 : row; place < (p.rows_of ? p.places : row + 1); ++place) {
        const uint32_t parent = p.parents[repetition * p.places + place];
        if ((p.rows_of && p.rows_of[place] != row) || parent == CONVPC_NO_FEATURE) continue;
        sum += p.above ? p.above[(uint64_t)(repetition * p.above_features + parent) * p.channels + channel] : 1.0;
    }
    p.to[at] = sum;
}

// Counts become the running mean of those of a row.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) average_counts(const ConvpcAverage p) {
    const uint64_t at = thread_number();
    if (at >= p.count) return;
    const double mean = p.momentum * p.running[at] + (1.0 - p.momentum) * (p.counts[at] / p.rows);
    p.running[at] = mean;
    p.counts[at] = mean;
}

// The sum of all squares, in an order that is always the same.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) add_squares(const ConvpcSquares p) {
    __shared__ double of_warps[CONVPC_THREADS / 32];
    double sum = 0.0;
    for (uint64_t i = threadIdx.x; i < p.count; i += CONVPC_THREADS) sum += p.squares[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = 0.0;
    for (uint32_t warp = 0; warp < CONVPC_THREADS / 32; ++warp) sum += of_warps[warp];
    *p.sum = sum;
}

// w = (count + pseudocount) / Σ (count + pseudocount), blended with what it was. What was possible stays possible.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) step_weights(const ConvpcWeightUpdate p) {
    const uint64_t row = warp_number();
    if (row >= p.rows) return;
    const double *counts = p.counts + row * p.inputs;
    float *w = p.linear + row * p.inputs;
    const Mixture mixed = mixture(p.blend, row, sum_of(counts, p.inputs), sum_of(w, p.inputs), p.pseudocount, p.inputs);
    if (!(mixed.total > 0.0)) return;
    for (uint32_t i = threadIdx.x % 32; i < p.inputs; i += 32) {
        const double q = mixed(counts[i], exact_weight(w[i]));
        w[i] = stored_weight(w[i] != 0.0f ? fmax(q, SMALLEST_WEIGHT) : q);
    }
}

// A step of Adam on the logits.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) ascend_weights(const ConvpcWeightUpdate p) {
    const uint64_t row = warp_number();
    if (row >= p.rows) return;
    double *counts = p.counts + row * p.inputs;
    float *w = p.linear + row * p.inputs;
    const double whole = sum_of(w, p.inputs), share = sum_of(counts, p.inputs) / whole;
    const auto write = [w](uint32_t i, double q) { w[i] = (float)q; };
    const bool moved = ascend(p.ascent, row, p.inputs, counts, w, whole, share, write);
    if (!moved && !p.ascent.squares && threadIdx.x % 32 == 0) stray(p.ascent, counts);
}

// count - w Σ count, with respect to the logits. Weights rounded to f32 do not quite sum to one.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) gradient_weights(const ConvpcWeightUpdate p) {
    const uint64_t row = warp_number();
    if (row >= p.rows) return;
    const double *counts = p.counts + row * p.inputs;
    const float *w = p.linear + row * p.inputs;
    const double share = sum_of(counts, p.inputs) / sum_of(w, p.inputs);
    for (uint32_t i = threadIdx.x % 32; i < p.inputs; i += 32) p.gradient[row * p.inputs + i] = counts[i] - exact_weight(w[i]) * share;
}

// Mean and standard deviation from the flow and the flow-weighted z and z^2, z = (x - mean) / std at the old parameters.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) step_location_scale(const ConvpcLeafUpdate p) {
    const uint64_t leaf = thread_number();
    if (leaf >= p.leaf_count) return;
    // The expected z is 0, the expected z^2 is 1.
    const double before = expected(p.blend, leaf), count = p.blend.counts * p.counts[3 * leaf] + before;
    if (!(count > 0.0)) return;
    const double shift = p.blend.counts * p.counts[3 * leaf + 1] / count;
    const double square = (p.blend.counts * p.counts[3 * leaf + 2] + before) / count;
    const double correction = p.bias_correction && count > 2.0 ? count / (count - 1.0) : 1.0;
    const double old = p.theta[2 * leaf], scale = p.theta[2 * leaf + 1];
    double mean = legal_mean(old + scale * shift);
    double std = legal_std(scale * sqrt(variance(square, shift) * correction), p.minimum_std);
    if (p.blend.kind == CONVPC_BLEND_PARAMETERS) {
        // The new moments as those of z, with the old ones, which are 0 and 1.
        const double to = (mean - old) / scale, ratio = std / scale, z = p.blend.step * to;
        const double zz = (1.0 - p.blend.step) + p.blend.step * (ratio * ratio + to * to);
        mean = legal_mean(old + scale * z);
        std = legal_std(scale * sqrt(variance(zz, z)), 0.0);
    }
    if (p.running) {
        // z at the old parameters is a linear function of z at the new ones.
        double *r = p.running + 3 * leaf;
        const double ratio = scale / std, offset = (old - mean) / std, sum = r[1];
        r[1] = ratio * sum + r[0] * offset;
        r[2] = ratio * ratio * r[2] + 2.0 * ratio * offset * sum + r[0] * offset * offset;
    }
    write_location_scale(p, leaf, mean, std);
}

// The mean moves in units of the standard deviation.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) ascend_location_scale(const ConvpcLeafUpdate p) {
    const uint64_t leaf = thread_number();
    if (leaf >= p.leaf_count) return;
    double *counts = p.counts + 3 * leaf;
    const double g0 = counts[1], g1 = counts[2] - counts[0];
    if (p.ascent.squares) {
        p.ascent.squares[leaf] = g0 * g0 + g1 * g1;
        return;
    }
    const double scale = slope(p.ascent), old = p.theta[2 * leaf + 1];
    const double mean = p.theta[2 * leaf] + old * ascent(p.ascent, 2 * leaf, g0 * scale);
    const double grown = old * exp(ascent(p.ascent, 2 * leaf + 1, g1 * scale));
    const double std = legal_std(grown, p.minimum_std);
    if (fabs(mean) <= LARGEST) {
        write_location_scale(p, leaf, mean, std);
    } else {
        counts[1] = mean;
        counts[2] = std;
        stray(p.ascent, counts);
    }
}

// With respect to the mean and the logarithm of the standard deviation.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) gradient_location_scale(const ConvpcLeafUpdate p) {
    const uint64_t leaf = thread_number();
    if (leaf >= p.leaf_count) return;
    p.gradient[2 * leaf] = p.counts[3 * leaf + 1] / p.theta[2 * leaf + 1];
    p.gradient[2 * leaf + 1] = p.counts[3 * leaf + 2] - p.counts[3 * leaf];
}

// The probability of a success from the flow-weighted successes and failures.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) step_binomial(const ConvpcLeafUpdate p) {
    const uint64_t leaf = thread_number();
    if (leaf >= p.leaf_count) return;
    const double n = p.trials, before = n * expected(p.blend, leaf), old = p.theta[leaf];
    const double successes = p.blend.counts * p.counts[3 * leaf + 1] + before * old + p.pseudocount;
    const double failures = p.blend.counts * p.counts[3 * leaf + 2] + before * (1.0 - old) + p.pseudocount;
    if (!(successes + failures > 0.0)) return;
    double q = successes / (successes + failures);
    if (p.blend.kind == CONVPC_BLEND_PARAMETERS) q = (1.0 - p.blend.step) * old + p.blend.step * q;
    write_binomial(p, leaf, q);
}

// A probability of 0 or 1 stays.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) ascend_binomial(const ConvpcLeafUpdate p) {
    const uint64_t leaf = thread_number();
    if (leaf >= p.leaf_count) return;
    const double q = p.theta[leaf], g = p.counts[3 * leaf + 1] - p.trials * q * p.counts[3 * leaf];
    if (p.ascent.squares) {
        p.ascent.squares[leaf] = g * g;
        return;
    }
    const double by = ascent(p.ascent, leaf, g * slope(p.ascent));
    if (!(q > 0.0 && q < 1.0)) return;
    const double logit = (log(q) - log1p(-q)) * p.ascent.keep + by;
    write_binomial(p, leaf, 1.0 / (1.0 + exp(-fmin(fmax(logit, -LARGEST_LOGIT), LARGEST_LOGIT))));
}

// With respect to the logit.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) gradient_binomial(const ConvpcLeafUpdate p) {
    const uint64_t leaf = thread_number();
    if (leaf >= p.leaf_count) return;
    p.gradient[leaf] = p.counts[3 * leaf + 1] - p.trials * p.theta[leaf] * p.counts[3 * leaf];
}

// The probability of each value; its logarithm, then that of the largest.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) step_table(const ConvpcLeafUpdate p) {
    const uint64_t leaf = warp_number();
    if (leaf >= p.leaf_count) return;
    const double *counts = p.counts + leaf * (p.values + 1) + 1;
    double *theta = p.theta + leaf * p.values;
    float *leaves = p.leaves + leaf * (p.values + 1);
    const Mixture mixed = mixture(p.blend, leaf, sum_of(counts, p.values), 1.0, p.pseudocount, p.values);
    if (!(mixed.total > 0.0)) return;
    float mode = __int_as_float(0xff800000);
    for (uint32_t v = threadIdx.x % 32; v < p.values; v += 32) {
        const double q = mixed(counts[v], theta[v]);
        const float density = (float)log(q);
        theta[v] = q;
        leaves[v] = density;
        mode = fmaxf(mode, density);
    }
    mode = warp_max(mode);
    if (threadIdx.x % 32 == 0) leaves[p.values] = mode;
}

// A step of Adam on the logits of each value.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) ascend_table(const ConvpcLeafUpdate p) {
    const uint64_t leaf = warp_number();
    if (leaf >= p.leaf_count) return;
    double *counts = p.counts + leaf * (p.values + 1);
    double *theta = p.theta + leaf * p.values;
    float *leaves = p.leaves + leaf * (p.values + 1);
    float mode = __int_as_float(0xff800000);
    const auto write = [theta, leaves, &mode](uint32_t v, double q) {
        theta[v] = q;
        leaves[v] = (float)log(q);
        mode = fmaxf(mode, leaves[v]);
    };
    const bool moved = ascend(p.ascent, leaf, p.values, counts + 1, theta, 1.0, counts[0], write);
    mode = warp_max(mode);
    if (threadIdx.x % 32 != 0) return;
    if (moved) leaves[p.values] = mode;
    if (!moved && !p.ascent.squares) stray(p.ascent, counts);
}

// With respect to the logits.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) gradient_table(const ConvpcLeafUpdate p) {
    const uint64_t leaf = warp_number();
    if (leaf >= p.leaf_count) return;
    const double *counts = p.counts + leaf * (p.values + 1);
    for (uint32_t v = threadIdx.x % 32; v < p.values; v += 32)
        p.gradient[leaf * p.values + v] = counts[1 + v] - p.theta[leaf * p.values + v] * counts[0];
}
