// A batch's leaf statistics: for each leaf the flow, and the flow-weighted T(x), of the rows in which its variable was
// observed, added to totals in float64. Sums are in a fixed order: the same input gives the same bits. Where columns share their
// leaves each has totals of its own, which fold_leaves then adds to the leaves' own, column after column.
//
// count_location_scale, count_natural: a warp takes a leaf, its lanes stride over the rows. Neighbouring warps are channels
// of one column, so that its data come from the first-level cache; the flow is read once and is all the traffic.
//
// count_table: statistics are as many as values, so a block makes a histogram in shared memory. A thread owns a channel of
// it and walks over its share of the rows in order: nobody else adds to its words. At least four threads share a channel, so
// that of the 4096 rows of the largest batch a thread adds at most 1024 in f32, off by 1024 · 2^-24 = 6e-5 of their sum at the
// very worst, by some 1e-6 else; all else is float64.
#include "params.h"
#include "warp.cuh"

namespace {

constexpr uint32_t WARPS = CONVPC_THREADS / 32;

// Rows that a lane adds in f32 before it goes on in f64.
constexpr uint32_t TERMS = 32;

// Rows that a thread of count_table reads at a time: two whole sectors of 32 bytes.
constexpr uint32_t CHUNK = 16;

__device__ __forceinline__ const float *flow_of(const ConvpcLeafCounts &p, uint32_t repetition, uint32_t feature, uint32_t c) {
    return p.flow + ((uint64_t)(repetition * p.features + feature) * p.channels + c) * p.stride;
}

// A warp's leaf: a block takes so many channels of a column and repetition.
struct Leaf {
    uint32_t column, repetition, channel, feature;

    __device__ explicit Leaf(const ConvpcLeafCounts &p) {
        const uint32_t groups = (p.channels + WARPS - 1) / WARPS, at = blockIdx.x / groups;
        channel = blockIdx.x % groups * WARPS + threadIdx.x / 32;
        repetition = at % p.repetitions;
        column = at / p.repetitions;
        feature = channel < p.channels ? p.parents[repetition * p.columns + column] : CONVPC_NO_FEATURE;
    }
    // Of its counts.
    __device__ __forceinline__ uint64_t number(const ConvpcLeafCounts &p) const {
        return (uint64_t)(column * p.repetitions + repetition) * p.channels + channel;
    }
    // Of its parameters.
    __device__ __forceinline__ uint64_t parameters(const ConvpcLeafCounts &p) const {
        const uint32_t row = p.leaf_rows ? p.leaf_rows[column] : column;
        return (uint64_t)(row * p.repetitions + repetition) * p.channels + channel;
    }
};

// The mean of (z / √2)² in a sum of TERMS above which a lane computes z anew in float64: rounding z to f32 would leave too little
// of the differences between values farther than 8 deviations.
constexpr float FAR = 32.0f;

// z and z² of a Normal leaf. As in the upward pass, z is divided by √2 in f32; `unit` is the factor that a sum lacks for that. The
// sums are float64: a variance is the difference of mean square and squared mean, which may be thousands of times as large.
struct Deviations {
    using Sum = double;
    const float4 q;
    const double *theta;

    __device__ __forceinline__ void add(double (&part)[3], float f, float x) const {
        const double z = (x - q.x - q.w) * q.y, fz = f * z;
        part[0] += f;
        part[1] += fz;
        part[2] = fma(fz, z, part[2]);
    }
    __device__ __forceinline__ double unit(uint32_t k) const { return k == 0 ? 1.4142135623730951 : 2.0; }
    // Also where a sum is infinite.
    __device__ __forceinline__ bool is_far(double flow, double squares) const { return !(squares <= FAR * flow); }
    __device__ __forceinline__ double inverse() const { return 1.0 / theta[1]; }
    __device__ __forceinline__ double exact(float x, double inverse) const { return (x - theta[0]) * inverse; }
};

// Two neighbouring statistics of a family in natural form, which are at least 0: nothing cancels.
struct Sufficient {
    using Sum = float;
    const float *table;
    uint32_t stride;

    __device__ __forceinline__ void add(float (&part)[3], float f, float x) const {
        const float *t = table + (uint64_t)(uint32_t)x * stride;
        part[0] += f;
        part[1] = fmaf(f, t[0], part[1]);
        part[2] = fmaf(f, t[1], part[2]);
    }
    __device__ __forceinline__ double unit(uint32_t) const { return 1.0; }
    __device__ __forceinline__ bool is_far(float, float) const { return false; }
    __device__ __forceinline__ double inverse() const { return 1.0; }
    __device__ __forceinline__ double exact(float x, double) const { return x; }
};

// Adds the statistics `j` and `j + 1` of a leaf, `t` of a value, over all rows; with the first the flow itself. Of a
// family in natural form a lane adds TERMS values in f32, which is off by TERMS · 2^-24 = 2e-6 of their sum at most; all else is
// float64.
template <class T>
__device__ __forceinline__ void add_pair(const ConvpcLeafCounts &p, const Leaf &leaf, uint32_t j, T t) {
    const float *flow = flow_of(p, leaf.repetition, leaf.feature, leaf.channel);
    const float *data = p.data + (uint64_t)leaf.column * p.stride;
    const uint32_t lane = threadIdx.x % 32;
    double sums[3] = {0.0, 0.0, 0.0};
    bool far = false;
#pragma unroll 1
    for (uint32_t row0 = lane; row0 < p.rows; row0 += 32 * TERMS) {
        const uint32_t end = min(p.rows, row0 + 32 * TERMS);
        typename T::Sum part[3] = {0, 0, 0};
#pragma unroll 4
        for (uint32_t row = row0; row < end; row += 32) {
            const float f = flow[row], x = data[row];
            // Where there is no flow, T may be infinite.
            if (isnan(x) || !(f > 0.0f)) continue;
            t.add(part, f, x);
        }
        far |= t.is_far(part[0], part[2]);
#pragma unroll
        for (uint32_t k = 0; k < 3; ++k) sums[k] += part[k];
    }
    sums[1] *= t.unit(0), sums[2] *= t.unit(1);
    if (far) {
        sums[0] = sums[1] = sums[2] = 0.0;
        const double inverse = t.inverse();
#pragma unroll 1
        for (uint32_t row = lane; row < p.rows; row += 32) {
            const float f = flow[row], x = data[row];
            if (isnan(x) || !(f > 0.0f)) continue;
            const double z = t.exact(x, inverse);
            sums[0] += f;
            sums[1] += f * z;
            sums[2] += f * z * z;
        }
    }
#pragma unroll
    for (uint32_t k = 0; k < 3; ++k) sums[k] = warp_sum(sums[k]);
    if (lane > 0) return;
    double *counts = p.counts + leaf.number(p) * (p.statistics + 1);
    if (j == 0) counts[0] += sums[0];
    counts[1 + j] += sums[1];
    if (j + 1 < p.statistics) counts[2 + j] += sums[2];
}

}  // namespace

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 10) count_location_scale(const ConvpcLeafCounts p) {
    const Leaf leaf(p);
    if (leaf.feature == CONVPC_NO_FEATURE) return;
    const uint64_t number = leaf.parameters(p);
    add_pair(p, leaf, 0, Deviations{reinterpret_cast<const float4 *>(p.leaves)[number], p.theta + 2 * number});
}

extern "C" __global__ void __launch_bounds__(CONVPC_THREADS, 12) count_natural(const ConvpcLeafCounts p) {
    const Leaf leaf(p);
    if (leaf.feature == CONVPC_NO_FEATURE) return;
    // T is followed by h, so that there is always a second number.
#pragma unroll 1
    for (uint32_t j = 0; j < p.statistics; j += 2)
        add_pair(p, leaf, j, Sufficient{p.sufficient + j, p.statistics + 1});
}

namespace {

// A thread's rows: CHUNK at a time, into registers. Beyond the last nothing is read.
__device__ __forceinline__ void read(const float *from, uint32_t row, uint32_t rows, float beyond, float (&to)[CHUNK]) {
    if (row + CHUNK <= rows) {
#pragma unroll
        for (uint32_t k = 0; k < CHUNK; k += 4) {
            const float4 v = *reinterpret_cast<const float4 *>(from + row + k);
            to[k] = v.x, to[k + 1] = v.y, to[k + 2] = v.z, to[k + 3] = v.w;
        }
    } else {
#pragma unroll
        for (uint32_t k = 0; k < CHUNK; ++k) to[k] = row + k < rows ? from[row + k] : beyond;
    }
}

}  // namespace

// Shared memory: [warp][values + 1][CONVPC_HISTOGRAM_LANES]; the value after the last is the flow of all values.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) count_table(const ConvpcLeafCounts p) {
    extern __shared__ float histogram[];
    const uint32_t groups = (p.channels + p.width - 1) / p.width, parts = CONVPC_THREADS / p.width;
    // Ranges of values innermost, so that blocks that run together read the same flow.
    const uint32_t first = blockIdx.x % p.ranges * p.values, at = blockIdx.x / p.ranges;
    const uint32_t c0 = at % groups * p.width, repetition = at / groups % p.repetitions;
    const uint32_t column = at / groups / p.repetitions, feature = p.parents[repetition * p.columns + column];
    if (feature == CONVPC_NO_FEATURE) return;
    const uint32_t c = c0 + threadIdx.x % p.width, part = threadIdx.x / p.width;
    const float *flow = flow_of(p, repetition, feature, min(c, p.channels - 1)), *data = p.data + (uint64_t)column * p.stride;
    // Thread t's words are word(t)[value * CONVPC_HISTOGRAM_LANES].
    const auto word = [&](uint32_t t) { return histogram + t / 32 * (p.values + 1) * CONVPC_HISTOGRAM_LANES + t % 32; };
    float *own = word(threadIdx.x);
    for (uint32_t v = 0; v < p.values; ++v) own[v * CONVPC_HISTOGRAM_LANES] = 0.0f;
    float total = 0.0f;
#pragma unroll 1
    for (uint32_t row = part * CHUNK; row < p.rows; row += parts * CHUNK) {
        float f[CHUNK], x[CHUNK];
        read(flow, row, p.rows, 0.0f, f);
        read(data, row, p.rows, __int_as_float(0x7fffffff), x);
#pragma unroll
        for (uint32_t k = 0; k < CHUNK; ++k) {
            if (isnan(x[k])) continue;
            total += f[k];
            const uint32_t v = (uint32_t)x[k] - first;
            if (v < p.values) own[v * CONVPC_HISTOGRAM_LANES] += f[k];
        }
    }
    own[p.values * CONVPC_HISTOGRAM_LANES] = total;
    __syncthreads();
    // Neighbouring threads take neighbouring values: whole lines of the totals, 32 banks of the histogram.
    for (uint32_t i = threadIdx.x; i < (p.values + 1) * p.width; i += CONVPC_THREADS) {
        const uint32_t v = i % (p.values + 1), channel = i / (p.values + 1);
        const bool all = v == p.values;
        if (c0 + channel >= p.channels || (all ? first > 0 : first + v >= p.statistics)) continue;
        double sum = 0.0;
        for (uint32_t q = 0; q < parts; ++q) sum += word(q * p.width + channel)[v * CONVPC_HISTOGRAM_LANES];
        const uint64_t leaf = (uint64_t)(column * p.repetitions + repetition) * p.channels + c0 + channel;
        p.counts[leaf * (p.statistics + 1) + (all ? 0 : 1 + first + v)] += sum;
    }
}

// A thread takes a value, so that neighbouring threads read neighbouring words of each column.
extern "C" __global__ void __launch_bounds__(CONVPC_THREADS) fold_leaves(const ConvpcFoldLeaves p) {
    const uint64_t at = (uint64_t)blockIdx.x * CONVPC_THREADS + threadIdx.x;
    if (at >= p.rows * p.values) return;
    const uint32_t row = (uint32_t)(at / p.values);
    double *from = p.from + at % p.values, sum = p.to[at];
#pragma unroll 4
    for (uint32_t column = 0; column < p.columns; ++column, from += p.values) {
        if (p.leaf_rows[column] != row) continue;
        sum += *from;
        *from = 0.0;
    }
    p.to[at] = sum;
}
