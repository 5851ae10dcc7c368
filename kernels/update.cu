// Parameters from expected counts, and gradients, in float64: the formulas of convpc-core's em.rs and family/*.rs.
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

}  // namespace

// w = (count + pseudocount) / Σ (count + pseudocount)
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) step_weights(const ConvpcWeightUpdate p) {
    const uint64_t row = warp_number();
    if (row >= p.rows) return;
    const double *counts = p.counts + row * p.inputs;
    float *w = p.linear + row * p.inputs;
    const double total = sum_of(counts, p.inputs) + p.pseudocount * p.inputs;
    if (!(total > 0.0)) return;
    for (uint32_t i = threadIdx.x % 32; i < p.inputs; i += 32) w[i] = (float)((counts[i] + p.pseudocount) / total);
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
    const double count = p.counts[3 * leaf];
    if (!(count > 0.0)) return;
    const double shift = p.counts[3 * leaf + 1] / count, square = p.counts[3 * leaf + 2] / count;
    const double correction = p.bias_correction && count > 2.0 ? count / (count - 1.0) : 1.0;
    const double scale = p.theta[2 * leaf + 1];
    const double mean = p.theta[2 * leaf] + scale * shift;
    // A variance of exactly zero has no density, whatever minimum was asked for: the smallest normal number.
    const double least = fmax(p.minimum_std, 2.2250738585072014e-308);
    const double std = fmax(scale * sqrt(fmax(square - shift * shift, 0.0) * correction), least);
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
    const double successes = p.counts[3 * leaf + 1] + p.pseudocount, failures = p.counts[3 * leaf + 2] + p.pseudocount;
    if (!(successes + failures > 0.0)) return;
    const double q = successes / (successes + failures), n = p.trials;
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
    const double total = sum_of(counts, p.values) + p.pseudocount * p.values;
    if (!(total > 0.0)) return;
    float mode = __int_as_float(0xff800000);
    for (uint32_t v = threadIdx.x % 32; v < p.values; v += 32) {
        const double q = (counts[v] + p.pseudocount) / total;
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
