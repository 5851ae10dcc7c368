// The inputs of a node: sums over its children (a product, in logarithms), read from activations or computed from data.
// One type a kind of source, so that a loop over channels decides nothing.
#pragma once
#include "numbers.cuh"
#include "params.h"

// A node's children are `list[0..count]`; `add` adds their values for the channels c, c + stride, … to x, as many as there are;
// the offset is common to all channels. Several channels at a time, so that what a child costs is paid once for all.
// `in_double` is the log-likelihood of one channel, offset included.
//
// The values of Normal leaves (EXACT) lack what their channels have in common, for which there is no offset: it is the
// difference between the log-likelihood of one channel, best of the most probable one, and its value.
struct Inputs {
    static constexpr bool EXACT = false;
    const ConvpcSource &s;
    const uint32_t *list;
    uint32_t count, repetition, row;
};

struct Nodes : Inputs {
    template <int N>
    __device__ __forceinline__ void add(uint32_t c, uint32_t stride, float (&x)[N]) const {
        // Mostly all channels are there, and nothing has to be asked for each; one alone is always there.
        if (N == 1 || c + (N - 1) * stride < s.channels) add_those<true>(c, stride, x);
        else add_those<false>(c, stride, x);
    }
    template <bool ALL, int N>
    __device__ __forceinline__ void add_those(uint32_t c, uint32_t stride, float (&x)[N]) const {
        const uint64_t step = (uint64_t)stride * s.rows;
#pragma unroll 1
        for (uint32_t i = 0; i < count; ++i) {
            const float *from =
                s.values + ((uint64_t)(repetition * s.features + list[i]) * s.channels + c) * s.rows + row;
#pragma unroll
            for (uint32_t k = 0; k < N; ++k, from += step)
                if (ALL || c + k * stride < s.channels) x[k] += *from;
        }
    }
    __device__ __forceinline__ double offset() const {
        double o = 0.0;
#pragma unroll 1
        for (uint32_t i = 0; i < count; ++i) o += s.offsets[(uint64_t)(repetition * s.features + list[i]) * s.rows + row];
        return o;
    }
    __device__ __forceinline__ double in_double(uint32_t c) const {
        double sum = 0.0;
#pragma unroll 1
        for (uint32_t i = 0; i < count; ++i) {
            const uint64_t node = repetition * s.features + list[i];
            sum += s.values[(node * s.channels + c) * s.rows + row] + s.offsets[node * s.rows + row];
        }
        return sum;
    }
};

struct Leaves : Inputs {
    // Visits the columns with their values; a missing value matters only to the mode.
    template <class F>
    __device__ __forceinline__ void each(F visit) const {
#pragma unroll 1
        for (uint32_t i = 0; i < count; ++i) {
            const float v = value(list[i]);
            const bool missing = isnan(v);
            if (!missing || s.max_product) visit(list[i], v, missing);
        }
    }
    __device__ __forceinline__ float value(uint32_t column) const { return s.data[(uint64_t)column * s.rows + row]; }
    __device__ __forceinline__ uint64_t number(uint32_t column, uint32_t c) const {
        const uint32_t leaf = s.leaf_rows ? s.leaf_rows[column] : column;
        return (uint64_t)(leaf * s.repetitions + repetition) * s.channels + c;
    }
    __device__ __forceinline__ const float *parameters(uint32_t column, uint32_t c) const {
        return s.leaves + number(column, c) * s.leaf_stride;
    }
    __device__ __forceinline__ double offset() const { return 0.0; }
};

// Minus the log-density is z^2 - bias with z = (x - mean) / (std √2); the natural form would cancel where std is small against
// the mean. For the same reason the mean is a sum of two numbers: rounded to one it may be many standard deviations off.
// The bias is relative to that of the narrowest channel, so that the values of many narrow leaves stay small.
struct LocationScale : Leaves {
    static constexpr bool EXACT = true;

    template <int N>
    __device__ __forceinline__ void add(uint32_t c, uint32_t stride, float (&x)[N]) const {
        each([&](uint32_t column, float v, bool missing) {
            const float4 *p = reinterpret_cast<const float4 *>(parameters(column, c));
#pragma unroll
            for (uint32_t k = 0; k < N; ++k) {
                if (c + k * stride >= s.channels) break;
                const float4 q = p[k * stride];
                const float z = (v - q.x - q.w) * q.y;
                x[k] -= missing ? q.z : fmaf(z, z, q.z);
            }
        });
    }
    template <int N>
    __device__ __forceinline__ void add_in_double(uint32_t c, uint32_t stride, double (&x)[N]) const {
        each([&](uint32_t column, float v, bool missing) {
            const double *p = s.exact + number(column, c) * 3;
#pragma unroll
            for (uint32_t k = 0; k < N; ++k, p += 3 * stride) {
                if (c + k * stride >= s.channels) break;
                const double z = (v - p[0]) * p[1];
                x[k] -= missing ? p[2] : fma(z, z, p[2]);
            }
        });
    }
    __device__ __forceinline__ double in_double(uint32_t c) const {
        double one[1] = {0.0};
        add_in_double(c, 0, one);
        return one[0];
    }
    // Whether a row is so far from all channels, given the largest value, that f32 holds too few digits of what they differ by. A few
    // nats for each variable are usual.
    __device__ __forceinline__ bool is_far(float largest) const { return fabsf(largest) > 64.0f + 4.0f * count; }
};

struct Table : Leaves {
    template <int N>
    __device__ __forceinline__ void add(uint32_t c, uint32_t stride, float (&x)[N]) const {
        each([&](uint32_t column, float v, bool missing) {
            // The entry after the last value is the mode.
            const float *p = parameters(column, c) + (missing ? s.leaf_stride - 1 : (uint32_t)v);
#pragma unroll
            for (uint32_t k = 0; k < N; ++k)
                if (c + k * stride < s.channels) x[k] += p[k * stride * s.leaf_stride];
        });
    }
    __device__ __forceinline__ double in_double(uint32_t c) const {
        float one[1] = {0.0f};
        add(c, 0, one);
        return one[0];
    }
};

// A binomial leaf by its most probable value m: log p(x) = log p(m) + h(x) - h(m) + (x - m) · logit. Terms as large as the trials
// cancel in h alone, which is a sum of two numbers for that; <eta, T(x)> + h(x) would be off by 1e-7 of the trials.
struct Natural : Leaves {
    template <int N>
    __device__ __forceinline__ void add(uint32_t c, uint32_t stride, float (&x)[N]) const {
        each([&](uint32_t column, float v, bool missing) {
            const float4 *p = reinterpret_cast<const float4 *>(parameters(column, c));
#pragma unroll
            for (uint32_t k = 0; k < N; ++k) {
                if (c + k * stride >= s.channels) break;
                const float4 q = p[k * stride];
                const float at = missing ? q.x : v, steps = at - q.x;
                const float2 h = reinterpret_cast<const float2 *>(s.base)[(uint32_t)at];
                // 0 · (-inf) = 0: the only possible value is certain.
                const float far = steps == 0.0f ? 0.0f : fmaf(steps, q.y, h.x - q.w);
                x[k] += far + (q.z + h.y);
            }
        });
    }
    __device__ __forceinline__ double in_double(uint32_t c) const {
        float one[1] = {0.0f};
        add(c, 0, one);
        return one[0];
    }
};

// The inputs relative to the largest, where x is 0 before. `total` is the log-likelihood that the largest stands for; it is read only
// where f32 would not do.
template <class X, int N>
__device__ __forceinline__ void add_relative(const X &x, float largest, const double *total, uint32_t c, uint32_t stride,
                                             float (&to)[N]) {
    if constexpr (X::EXACT) {
        if (x.is_far(largest)) {
            double exact[N] = {};
            x.add_in_double(c, stride, exact);
#pragma unroll
            for (uint32_t k = 0; k < N; ++k) to[k] = (float)(exact[k] - *total);
            return;
        }
    }
    x.add(c, stride, to);
#pragma unroll
    for (uint32_t k = 0; k < N; ++k) to[k] -= largest;
}

template <class X>
__device__ __forceinline__ float relative_input(const X &x, float largest, const double *total, uint32_t c) {
    float one[1] = {0.0f};
    add_relative(x, largest, total, c, 0, one);
    return one[0];
}

// The largest log-likelihood of all channels, 0 where all are -inf.
template <class X>
__device__ __forceinline__ double largest_in_double(const X &x, uint32_t inputs) {
    double largest = (double)negative_infinity();
#pragma unroll 1
    for (uint32_t c = 0; c < inputs; ++c) largest = fmax(largest, x.in_double(c));
    return largest == (double)negative_infinity() ? 0.0 : largest;
}

// The same for a row that is far from all channels, for others 0.
template <class X>
__device__ __forceinline__ double total_of_far(const X &x, float largest, uint32_t inputs) {
    if constexpr (X::EXACT) {
        if (x.is_far(largest)) return largest_in_double(x, inputs);
    }
    return 0.0;
}

// One input.
template <class X>
__device__ __forceinline__ float input(const X &x, uint32_t c) {
    float one[1] = {0.0f};
    x.add(c, 0, one);
    return one[0];
}

// Calls f with the source's inputs for one node and row.
template <class F>
__device__ __forceinline__ void with_inputs(const ConvpcSource &s, uint32_t first, uint32_t count, uint32_t repetition,
                                            uint32_t row, F f) {
    const uint32_t *list = s.list + first;
    switch (s.kind) {
        case CONVPC_SOURCE_NODES: f(Nodes{{s, list, count, repetition, row}}); break;
        case CONVPC_SOURCE_LOCATION_SCALE: f(LocationScale{{{s, list, count, repetition, row}}}); break;
        case CONVPC_SOURCE_TABLE: f(Table{{{s, list, count, repetition, row}}}); break;
        default: f(Natural{{{s, list, count, repetition, row}}}); break;
    }
}

// log sum_c w[c] exp x(c), relative to the largest x, in logarithms throughout: for the few sums that the fast way cannot be
// trusted with.
template <class X>
__device__ float log_sum(const X &x, const float *w, uint32_t inputs, float largest, const double *total) {
    Terms terms;
#pragma unroll 1
    for (uint32_t c = 0; c < inputs; ++c) terms.add(log_weight(w[c]) + relative_input(x, largest, total, c));
    return terms.log_sum();
}

__device__ __forceinline__ uint64_t value_index(const ConvpcOutput &o, uint32_t rows, uint32_t repetition, uint32_t feature,
                                                uint32_t channel, uint32_t row) {
    return ((uint64_t)(repetition * o.features + feature) * o.channels + channel) * rows + row;
}

// What a sum leaves for a row besides its channels' values.
__device__ __forceinline__ void leave(const ConvpcOutput &o, uint64_t at, double offset, float largest) {
    o.offsets[at] = offset;
    if (o.maxima) o.maxima[at] = largest;
}

__device__ __forceinline__ uint64_t offset_index(const ConvpcOutput &o, uint32_t rows, uint32_t repetition,
                                                 uint32_t feature, uint32_t row) {
    return (uint64_t)(repetition * o.features + feature) * rows + row;
}
