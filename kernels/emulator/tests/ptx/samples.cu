// Small kernels in the style of the project's, for the tests of the software device. `samples.ptx` beside it was made
// of it by NVRTC 12.2 with -arch=compute_80; only these tests use it, so nothing else compares the two.
typedef unsigned int u32;

__constant__ float scale[4] = {1.0f, 0.5f, 2.0f, 0.25f};
__device__ u32 visits = 7;

// C[m][n] = A[m][k] B[k][n], tiles of 64 x 64 in shared memory, 256 threads.
extern "C" __global__ void __launch_bounds__(256) tile_f32(const float *a, const float *b, float *c, u32 m, u32 n, u32 k) {
    __shared__ __align__(16) float sa[16][64];
    __shared__ __align__(16) float sb[16][64];
    const u32 tid = threadIdx.x, tx = tid & 15u, ty = tid >> 4, m0 = blockIdx.y * 64u, n0 = blockIdx.x * 64u;
    float acc[4][4] = {};
    for (u32 k0 = 0; k0 < k; k0 += 16) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const u32 e = tid + 256u * i, kk = e >> 6, x = e & 63u;
            sa[kk][x] = m0 + x < m && k0 + kk < k ? a[(m0 + x) * k + k0 + kk] : 0.0f;
            sb[kk][x] = n0 + x < n && k0 + kk < k ? b[(k0 + kk) * n + n0 + x] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (u32 kk = 0; kk < 16; ++kk) {
            float x[4], y[4];
#pragma unroll
            for (u32 i = 0; i < 4; ++i) x[i] = sa[kk][ty * 4 + i], y[i] = sb[kk][tx * 4 + i];
#pragma unroll
            for (u32 i = 0; i < 4; ++i)
#pragma unroll
                for (u32 j = 0; j < 4; ++j) acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i)
#pragma unroll
        for (u32 j = 0; j < 4; ++j)
            if (m0 + ty * 4 + i < m && n0 + tx * 4 + j < n) c[(m0 + ty * 4 + i) * n + n0 + tx * 4 + j] = acc[i][j];
}

__device__ __forceinline__ u32 tf32(float x) {
    u32 r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}

// One warp: C[16][8] = A[16][k] B[k][8], k a multiple of 8, operands copied asynchronously.
extern "C" __global__ void __launch_bounds__(32) tile_tf32(const float *a, const float *b, float *c, u32 k) {
    extern __shared__ __align__(16) float smem[];
    float *sa = smem, *sb = smem + 16 * 8;
    const u32 lane = threadIdx.x, g = lane >> 2, t = lane & 3u;
    float d[4] = {};
    for (u32 k0 = 0; k0 < k; k0 += 8) {
        for (u32 e = lane; e < 32; e += 32)
            asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(sa + e * 4)),
                         "l"(a + (e >> 1) * k + k0 + (e & 1u) * 4));
        if (lane < 16)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(sb + lane * 4)),
                         "l"(b + k0 * 8 + lane * 4));
        asm volatile("cp.async.commit_group;\n cp.async.wait_group 0;" ::: "memory");
        __syncthreads();
        u32 fa[4], fb[2];
        for (u32 i = 0; i < 4; ++i) fa[i] = tf32(sa[(g + (i & 1u) * 8) * 8 + t + (i >> 1) * 4]);
        for (u32 i = 0; i < 2; ++i) fb[i] = tf32(sb[(t + i * 4) * 8 + g]);
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                     "{%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
        __syncthreads();
    }
    for (u32 i = 0; i < 4; ++i) c[(g + (i >> 1) * 8) * 8 + 2 * t + (i & 1u)] = d[i];
}

// out[b] = log sum_i exp(x[i][b]), a thread a column.
extern "C" __global__ void log_sum_exp(const float *x, float *out, u32 rows, u32 columns) {
    const u32 b = blockIdx.x * blockDim.x + threadIdx.x;
    if (b >= columns) return;
    float m = -__int_as_float(0x7f800000), s = 0.0f;
    for (u32 i = 0; i < rows; ++i) m = fmaxf(m, x[i * columns + b]);
    for (u32 i = 0; i < rows; ++i) s += __expf(x[i * columns + b] - m);
    out[b] = m + __logf(s);
}

// *sum += all of x, and visits counts blocks.
extern "C" __global__ void __launch_bounds__(256) reduce(const float *x, float *sum, u32 n) {
    __shared__ float part[8];
    const u32 lane = threadIdx.x & 31u, warp = threadIdx.x >> 5;
    float v = 0.0f;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
    for (u32 o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    if (lane == 0) part[warp] = v * scale[0];
    __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0.0f;
        for (u32 i = 0; i < blockDim.x / 32; ++i) total += part[i];
        atomicAdd(sum, total);
        atomicAdd(&visits, 1u);
    }
}

// The ordinary mathematics of C: division, roots, accurate exponentials and logarithms, a table in local memory.
extern "C" __global__ void mathematics(const float *x, float *out, const int *index, u32 n) {
    const u32 i = threadIdx.x;
    if (i >= n) return;
    float table[8];
    for (u32 j = 0; j < 8; ++j) table[j] = x[(i + j) % n] * scale[j & 3u];
    const float v = x[i];
    out[6 * i] = v / 3.0f + table[index[i] & 7];
    out[6 * i + 1] = sqrtf(v);
    out[6 * i + 2] = expf(v);
    out[6 * i + 3] = logf(v);
    out[6 * i + 4] = floorf(v) + rintf(v) + __saturatef(v);
    out[6 * i + 5] = (float)((double)v * 1.1) + (float)(index[i] / 3) + (float)((u32)index[i] % 7u) + (float)(__popc(i));
}
