// What this device can do at most, to compare kernels with: copy bandwidth, and the rates of the instructions that the
// kernels are made of. Prints a line of JSON for each. Built by nvcc: nvcc -O3 -std=c++17 -arch=native ceilings.cu
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <cuda_runtime.h>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        cudaError_t error = (call);                                                                \
        if (error != cudaSuccess) {                                                                \
            std::fprintf(stderr, "%s: %s\n", #call, cudaGetErrorString(error));                    \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)

constexpr int THREADS = 256;
constexpr int STEPS = 4096;   // of the loop in a rate kernel
constexpr int CHAINS = 8;     // independent results in flight in a thread
constexpr int REPEATS = 10;   // of a measurement; the best counts, since this is a ceiling

__global__ void fma_f32(float *out, float a) {
    float x[CHAINS];
    for (int c = 0; c < CHAINS; ++c) x[c] = threadIdx.x + c;
    for (int step = 0; step < STEPS; ++step) {
#pragma unroll
        for (int c = 0; c < CHAINS; ++c) x[c] = fmaf(x[c], a, 1.0f);
    }
    float sum = 0;
    for (int c = 0; c < CHAINS; ++c) sum += x[c];
    if (sum == 12345.0f) *out = sum;  // so that the loop is not removed
}

__global__ void ex2(float *out, float a) {
    float x[CHAINS];
    for (int c = 0; c < CHAINS; ++c) x[c] = a * (threadIdx.x + c);
    for (int step = 0; step < STEPS; ++step) {
#pragma unroll
        for (int c = 0; c < CHAINS; ++c) asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(x[c]));
    }
    float sum = 0;
    for (int c = 0; c < CHAINS; ++c) sum += x[c];
    if (sum == 12345.0f) *out = sum;
}

// m16n8k16, bf16 in, f32 out: 2 * 16 * 8 * 16 operations a warp.
__device__ void multiply_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// m16n8k8, tf32 in, f32 out: 2 * 16 * 8 * 8 operations a warp.
__device__ void multiply_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <void MULTIPLY(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2])>
__global__ void mma(float *out, uint32_t seed) {
    // Random bits in the mantissa, exponents near 1: zeros would run faster than real data.
    uint32_t state = seed + blockIdx.x * THREADS + threadIdx.x, a[4], b[2];
    auto random = [&] {
        state = state * 1664525u + 1013904223u;
        return (state & 0x807f807fu) | 0x3f003f00u;
    };
    for (uint32_t &word : a) word = random();
    for (uint32_t &word : b) word = random();
    float d[CHAINS][4] = {};
    for (int step = 0; step < STEPS; ++step) {
#pragma unroll
        for (int c = 0; c < CHAINS; ++c) MULTIPLY(d[c], a, b);
    }
    float sum = 0;
    for (int c = 0; c < CHAINS; ++c) sum += d[c][0] + d[c][1] + d[c][2] + d[c][3];
    if (sum == 12345.0f) *out = sum;
}

// Reads and writes 16 bytes a thread at a time.
__global__ void copy(uint4 *to, const uint4 *from, size_t count) {
    for (size_t i = blockIdx.x * size_t(THREADS) + threadIdx.x; i < count; i += size_t(gridDim.x) * THREADS) to[i] = from[i];
}

template <typename F>
double best_seconds(F run) {
    cudaEvent_t start, stop;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&stop));
    run();  // loads the code, wakes the clocks
    double best = 1e30;
    for (int i = 0; i < REPEATS; ++i) {
        CHECK(cudaEventRecord(start));
        run();
        CHECK(cudaGetLastError());
        CHECK(cudaEventRecord(stop));
        CHECK(cudaEventSynchronize(stop));
        float ms;
        CHECK(cudaEventElapsedTime(&ms, start, stop));
        if (ms / 1e3 < best) best = ms / 1e3;
    }
    return best;
}

void print(const char *name, double value, const char *unit) {
    std::printf("{\"ceiling\": \"%s\", \"value\": %.4g, \"unit\": \"%s\"}\n", name, value, unit);
    std::fflush(stdout);
}

int main() {
    cudaDeviceProp device;
    CHECK(cudaGetDeviceProperties(&device, 0));
    const int blocks = device.multiProcessorCount * (device.maxThreadsPerMultiProcessor / THREADS);

    const size_t bytes = size_t(1) << 30;
    void *from, *to;
    CHECK(cudaMalloc(&from, bytes));
    CHECK(cudaMalloc(&to, bytes));
    CHECK(cudaMemset(from, 0x5a, bytes));
    double seconds = best_seconds([&] { CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice)); });
    print("copy, cudaMemcpy", 2 * bytes / seconds / 1e9, "GB/s read and written");
    seconds = best_seconds([&] { copy<<<blocks, THREADS>>>((uint4 *)to, (const uint4 *)from, bytes / sizeof(uint4)); });
    print("copy, kernel", 2 * bytes / seconds / 1e9, "GB/s read and written");

    float *out = (float *)to;
    const double results = double(blocks) * THREADS * STEPS * CHAINS;
    seconds = best_seconds([&] { fma_f32<<<blocks, THREADS>>>(out, 0.999f); });
    print("f32 fma", 2 * results / seconds / 1e12, "TFLOP/s");
    seconds = best_seconds([&] { ex2<<<blocks, THREADS>>>(out, 0.001f); });
    print("ex2.approx", results / seconds / 1e12, "T/s");
    seconds = best_seconds([&] { mma<multiply_tf32><<<blocks, THREADS>>>(out, 1); });
    print("mma.sync tf32", results / 32 * (2 * 16 * 8 * 8) / seconds / 1e12, "TFLOP/s");
    seconds = best_seconds([&] { mma<multiply_bf16><<<blocks, THREADS>>>(out, 1); });
    print("mma.sync bf16", results / 32 * (2 * 16 * 8 * 16) / seconds / 1e12, "TFLOP/s");
    return 0;
}
