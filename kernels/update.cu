// Parameters from expected counts, and gradients, in float64: the formulas of convpc-core's em.rs, mini_batch.rs and family/*.rs.
//
// A sum's weights are a row of its matrices; a warp takes a row. Leaves of few parameters are a thread's, tables a warp's.
// What saw no flow stays as it is.
#include "params.h"
#include "warp.cuh"

namespace {

__device__ __forceinline__ uint64_t warp_number() {
    return (uint64_t)blockIdx.x * (CONVPC_THREADS / 32) + threadIdx.x / 32;
}

__device__ __forceinline__ uint64_t thread_number() { return (uint64_t)blockIdx.x * CONVPC_THREADS + threadIdx.x; }

// The sum of n values, in every lane; lanes stride over them.
template <class T>
__device__ __forceinline__ double sum_of(const T *x, uint32_t n) {
    double sum = 0.0;
    for (uint32_t i = threadIdx.x % 32; i < n; i += 32) sum += x[i];
    return warp_sum(sum);
}

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

// The expected count of what was there before.
__device__ __forceinline__ double expected(const ConvpcBlend &b, uint64_t at) { return b.used ? b.expected * b.used[at] : 0.0; }

}  // namespace

// Σ_d used(d) · w[d][c]: a thread takes an input.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) top_down(const ConvpcTopDown p) {
    const uint32_t feature = blockIdx.x % p.features, repetition = blockIdx.x / p.features;
    const uint32_t parent = p.parents[feature];
    const bool there = parent != CONVPC_NO_FEATURE;
    const double *above = p.above ? p.above + (uint64_t)(repetition * p.above_features + parent) * p.outputs : nullptr;
    const float *w = p.linear + (uint64_t)(p.groups[feature] * p.repetitions + repetition) * p.outputs * p.inputs;
    for (uint32_t i = threadIdx.x; i < (p.mixes ? p.inputs * p.outputs : p.inputs); i += CONVPC_THREADS) {
        if (p.mixes) {
            const uint32_t r = i / p.outputs, c = i % p.outputs;
            p.below[(uint64_t)(r * p.features + feature) * p.outputs + c] =
                there ? (above ? above[c] : 1.0) * w[c * p.inputs + r] : 0.0;
            continue;
        }
        double sum = 0.0;
        for (uint32_t d = 0; there && d < p.outputs; ++d) sum += (above ? above[d] : 1.0) * w[d * p.inputs + i];
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
        const uint32_t parent = p.parents[place];
        if ((p.rows_of && p.rows_of[place] != row) || parent == CONVPC_NO_FEATURE) continue;
        sum += p.above ? p.above[(uint64_t)(repetition * p.above_features + parent) * p.channels + channel] : 1.0;
    }
    p.to[at] = sum;
}

// w = (count + pseudocount) / Σ (count + pseudocount), blended with what it was.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) step_weights(const ConvpcWeightUpdate p) {
    const uint64_t row = warp_number();
    if (row >= p.rows) return;
    const double *counts = p.counts + row * p.inputs;
    float *w = p.linear + row * p.inputs;
    const Mixture mixed = mixture(p.blend, row, sum_of(counts, p.inputs), sum_of(w, p.inputs), p.pseudocount, p.inputs);
    if (!(mixed.total > 0.0)) return;
    for (uint32_t i = threadIdx.x % 32; i < p.inputs; i += 32) w[i] = (float)mixed(counts[i], w[i]);
}

// count - w Σ count, with respect to the logits. Weights rounded to f32 do not quite sum to one.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) gradient_weights(const ConvpcWeightUpdate p) {
    const uint64_t row = warp_number();
    if (row >= p.rows) return;
    const double *counts = p.counts + row * p.inputs;
    const float *w = p.linear + row * p.inputs;
    const double share = sum_of(counts, p.inputs) / sum_of(w, p.inputs);
    for (uint32_t i = threadIdx.x % 32; i < p.inputs; i += 32) p.gradient[row * p.inputs + i] = counts[i] - w[i] * share;
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
    const double scale = p.theta[2 * leaf + 1];
    double mean = p.theta[2 * leaf] + scale * shift;
    // A variance of exactly zero has no density, whatever minimum was asked for: the smallest normal number.
    const double tiny = 2.2250738585072014e-308, least = fmax(p.minimum_std, tiny);
    double std = fmax(scale * sqrt(fmax(square - shift * shift, 0.0) * correction), least);
    if (p.blend.kind == CONVPC_BLEND_PARAMETERS) {
        // The new moments as those of z, with the old ones, which are 0 and 1.
        const double z = p.blend.step * shift, zz = std / scale * (std / scale) + shift * shift;
        mean = p.theta[2 * leaf] + scale * z;
        std = fmax(scale * sqrt(fmax((1.0 - p.blend.step) + p.blend.step * zz - z * z, 0.0)), tiny);
    }
    p.theta[2 * leaf] = mean;
    p.theta[2 * leaf + 1] = std;
    const double half_log_tau = 0.91893853320467274178;
    reinterpret_cast<float4 *>(p.leaves)[leaf] =
        make_float4((float)mean, (float)(1.0 / std), (float)(-(log(std) + half_log_tau)), 0.0f);
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
    const double eta0 = log(q), eta1 = log1p(-q);
    const double mode = fmin(fmax(ceil((n + 1.0) * q) - 1.0, 0.0), n);
    // 0 · (-inf) = 0
    double density = p.log_base[(uint32_t)mode];
    if (mode > 0.0) density += eta0 * mode;
    if (mode < n) density += eta1 * (n - mode);
    p.theta[leaf] = q;
    reinterpret_cast<float4 *>(p.leaves)[leaf] = make_float4((float)eta0, (float)eta1, 0.0f, (float)density);
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
#pragma unroll
    for (uint32_t offset = 16; offset > 0; offset /= 2) mode = fmaxf(mode, __shfl_xor_sync(0xffffffffu, mode, offset));
    if (threadIdx.x % 32 == 0) leaves[p.values] = mode;
}

// With respect to the logits.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) gradient_table(const ConvpcLeafUpdate p) {
    const uint64_t leaf = warp_number();
    if (leaf >= p.leaf_count) return;
    const double *counts = p.counts + leaf * (p.values + 1);
    for (uint32_t v = threadIdx.x % 32; v < p.values; v += 32)
        p.gradient[leaf * p.values + v] = counts[1 + v] - p.theta[leaf * p.values + v] * counts[0];
}
