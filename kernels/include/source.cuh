// The inputs of a node: sums over its children (a product, in logarithms), read from activations or computed from data.
// One type a kind of source, so that a loop over channels decides nothing.
#pragma once
#include "numbers.cuh"
#include "params.h"

// A node's children are `list[0..count]`; `add` adds their values for the channels c, c + stride, … to x, as many as there are;
// the offset is common to all channels. Several channels at a time, so that what a child costs is paid once for all.
struct Inputs {
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
    __device__ __forceinline__ float offset() const {
        float o = 0.0f;
#pragma unroll 1
        for (uint32_t i = 0; i < count; ++i) o += s.offsets[(uint64_t)(repetition * s.features + list[i]) * s.rows + row];
        return o;
    }
};

struct Leaves : Inputs {
    __device__ __forceinline__ float value(uint32_t column) const { return s.data[(uint64_t)column * s.rows + row]; }
    __device__ __forceinline__ const float *parameters(uint32_t column, uint32_t c) const {
        const uint32_t leaf = s.leaf_rows ? s.leaf_rows[column] : column;
        return s.leaves + ((uint64_t)(leaf * s.repetitions + repetition) * s.channels + c) * s.leaf_stride;
    }
    __device__ __forceinline__ float offset() const { return 0.0f; }
};

// Minus the log-density is z^2 - bias with z = (x - mean) / (std √2); the natural form would cancel where std is small against
// the mean. For the same reason the mean is a sum of two numbers: rounded to one it may be many standard deviations off.
struct LocationScale : Leaves {
    template <int N>
    __device__ __forceinline__ void add(uint32_t c, uint32_t stride, float (&x)[N]) const {
#pragma unroll 1
        for (uint32_t i = 0; i < count; ++i) {
            const float v = value(list[i]);
            const bool missing = isnan(v);
            if (missing && !s.max_product) continue;
            const float4 *p = reinterpret_cast<const float4 *>(parameters(list[i], c));
#pragma unroll
            for (uint32_t k = 0; k < N; ++k) {
                if (c + k * stride >= s.channels) break;
                const float4 q = p[k * stride];
                const float z = (v - q.x - q.w) * q.y;
                x[k] -= missing ? q.z : fmaf(z, z, q.z);
            }
        }
    }
};

struct Table : Leaves {
    template <int N>
    __device__ __forceinline__ void add(uint32_t c, uint32_t stride, float (&x)[N]) const {
#pragma unroll 1
        for (uint32_t i = 0; i < count; ++i) {
            const float v = value(list[i]);
            const bool missing = isnan(v);
            if (missing && !s.max_product) continue;
            // The entry after the last value is the mode.
            const float *p = parameters(list[i], c) + (missing ? s.leaf_stride - 1 : (uint32_t)v);
#pragma unroll
            for (uint32_t k = 0; k < N; ++k)
                if (c + k * stride < s.channels) x[k] += p[k * stride * s.leaf_stride];
        }
    }
};

// A binomial leaf by its most probable value m: log p(x) = log p(m) + h(x) - h(m) + (x - m) · logit. Terms as large as the trials
// cancel in h alone, which is a sum of two numbers for that; <eta, T(x)> + h(x) would be off by 1e-7 of the trials.
struct Natural : Leaves {
    template <int N>
    __device__ __forceinline__ void add(uint32_t c, uint32_t stride, float (&x)[N]) const {
#pragma unroll 1
        for (uint32_t i = 0; i < count; ++i) {
            const float v = value(list[i]);
            const bool missing = isnan(v);
            if (missing && !s.max_product) continue;
            const float4 *p = reinterpret_cast<const float4 *>(parameters(list[i], c));
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
        }
    }
};

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

// log sum_c w[c] exp x(c), in logarithms throughout: for the few sums that the fast way cannot be trusted with.
template <class X>
__device__ float log_sum(const X &x, const float *w, uint32_t inputs) {
    Terms terms;
#pragma unroll 1
    for (uint32_t c = 0; c < inputs; ++c) terms.add(log_weight(w[c]) + input(x, c));
    return terms.log_sum();
}

__device__ __forceinline__ uint64_t value_index(const ConvpcOutput &o, uint32_t rows, uint32_t repetition, uint32_t feature,
                                                uint32_t channel, uint32_t row) {
    return ((uint64_t)(repetition * o.features + feature) * o.channels + channel) * rows + row;
}

// What a sum leaves for a row besides its channels' values.
__device__ __forceinline__ void leave(const ConvpcOutput &o, uint64_t at, float offset, float largest) {
    o.offsets[at] = offset;
    if (o.maxima) o.maxima[at] = largest;
}

__device__ __forceinline__ uint64_t offset_index(const ConvpcOutput &o, uint32_t rows, uint32_t repetition,
                                                 uint32_t feature, uint32_t row) {
    return (uint64_t)(repetition * o.features + feature) * rows + row;
}
