/* Exact nearest vectors by a scan of codes.

   Each vector has a code of one byte a dimension and a bound on what the code leaves out, so a code tells an upper
   bound of the vector's score. Only vectors whose bound exceeds the worst score kept so far are scored in full, in
   float32 and always in the same order of additions: the answer is that of scoring every vector, to the bit and on
   every processor. No later vector can score above |q| times the largest norm from there on (Cauchy-Schwarz; the
   bound of LEMP, Teflioudi et al., SIGMOD 2015, section 3), which ends the scan early where norms fall off.

   Codes stand in blocks of 16 vectors, four dimensions of each side by side: one instruction multiplies and adds them
   for all 16, and no sum across a register is needed. */
#include "scan.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define GROUP 4
#define CODE_MOST 127.0f
#define LARGE_PAGE ((size_t)1 << 21)

/* Keeps the loop that follows, of fixed length, a loop: unrolled, it would not be vectorised. */
#define EACH_LANE _Pragma("GCC unroll 1")

enum { INNER_PRODUCT = 0, SQUARED_DISTANCE = 1 };

typedef Py_ssize_t (*Skip)(const Scan *, const Asked *, Py_ssize_t, Py_ssize_t, float, uint32_t *);

static inline float cut_of(const Scan *scan, const Asked *asked, Py_ssize_t block, float least) {
    return least - (asked->length * scan->left_out[block] + asked->error * scan->coded[block]) -
           scan->half_rounding[block];
}

/* Scores by codes of a block's vectors, here and in the next two. */
static INLINE void plain_scores(const Scan *scan, const Asked *asked, Py_ssize_t block, float *scores) {
    const int8_t *codes = scan->codes + block * scan->groups * LANES * GROUP;
    int32_t dots[LANES] = {0};
    for (Py_ssize_t group = 0; group < scan->groups; group++, codes += LANES * GROUP) {
        const uint8_t *code = asked->code + group * GROUP;
        for (int lane = 0; lane < LANES; lane++)
            for (int at = 0; at < GROUP; at++) dots[lane] += (int32_t)code[at] * codes[lane * GROUP + at];
    }
    for (int lane = 0; lane < LANES; lane++) {
        Py_ssize_t at = block * LANES + lane;
        float score = asked->step * ((float)dots[lane] * scan->scale[at] - asked->zero * scan->shift[at]);
        scores[lane] = score - scan->half[at];
    }
}

#if RECO_X86
#define FOR_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define FOR_AVX2 __attribute__((target("avx2")))

FOR_AVX512 static INLINE __m512 avx512_scores(const Scan *scan, const Asked *asked, Py_ssize_t block) {
    const Py_ssize_t groups = scan->groups;
    const int8_t *codes = scan->codes + block * groups * LANES * GROUP;
    __m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();
    Py_ssize_t group = 0;
    for (; group + 1 < groups; group += 2) {
        int32_t first, second;
        memcpy(&first, asked->code + group * GROUP, sizeof first);
        memcpy(&second, asked->code + group * GROUP + GROUP, sizeof second);
        even = _mm512_dpbusd_epi32(even, _mm512_set1_epi32(first), _mm512_load_si512(codes + group * 64));
        odd = _mm512_dpbusd_epi32(odd, _mm512_set1_epi32(second), _mm512_load_si512(codes + group * 64 + 64));
    }
    if (group < groups) {
        int32_t last;
        memcpy(&last, asked->code + group * GROUP, sizeof last);
        even = _mm512_dpbusd_epi32(even, _mm512_set1_epi32(last), _mm512_load_si512(codes + group * 64));
    }
    const Py_ssize_t at = block * LANES;
    const __m512 dots = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
    const __m512 scores =
        _mm512_mul_ps(_mm512_set1_ps(asked->step),
                      _mm512_sub_ps(_mm512_mul_ps(dots, _mm512_load_ps(scan->scale + at)),
                                    _mm512_mul_ps(_mm512_set1_ps(asked->zero), _mm512_load_ps(scan->shift + at))));
    return _mm512_sub_ps(scores, _mm512_load_ps(scan->half + at));
}

FOR_AVX2 static INLINE void avx2_scores(const Scan *scan, const Asked *asked, Py_ssize_t block, __m256 scores[2]) {
    const int8_t *codes = scan->codes + block * scan->groups * LANES * GROUP;
    const __m256 step = _mm256_set1_ps(asked->step), zero = _mm256_set1_ps(asked->zero);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i dots[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (Py_ssize_t group = 0; group < scan->groups; group++) {
        int32_t four;
        memcpy(&four, asked->code + group * GROUP, sizeof four);
        const __m256i code = _mm256_set1_epi32(four);
        for (int half = 0; half < 2; half++) { /* codes of queries are below 128 here: sums of two fit 16 bits */
            __m256i both =
                _mm256_maddubs_epi16(code, _mm256_load_si256((const __m256i *)(codes + group * 64 + half * 32)));
            dots[half] = _mm256_add_epi32(dots[half], _mm256_madd_epi16(both, ones));
        }
    }
    for (int half = 0; half < 2; half++) {
        const Py_ssize_t at = block * LANES + half * 8;
        scores[half] = _mm256_mul_ps(
            step, _mm256_sub_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(dots[half]), _mm256_load_ps(scan->scale + at)),
                                _mm256_mul_ps(zero, _mm256_load_ps(scan->shift + at))));
        scores[half] = _mm256_sub_ps(scores[half], _mm256_load_ps(scan->half + at));
    }
}
#endif

/* Each: from `block` to `end` the first block with a vector that may score above `least`, and which (a bit each); -1:
   none. */
static Py_ssize_t skip_plain(const Scan *scan, const Asked *asked, Py_ssize_t block, Py_ssize_t end, float least,
                             uint32_t *may) {
    for (; block < end; block++) {
        if (asked->length * scan->reach[block] <= least) return -1;
        float scores[LANES];
        plain_scores(scan, asked, block, scores);
        const float cut = cut_of(scan, asked, block, least);
        uint32_t bits = 0;
        for (int lane = 0; lane < LANES; lane++) bits |= (uint32_t)(scores[lane] > cut) << lane;
        if (bits) {
            *may = bits;
            return block;
        }
    }
    return -1;
}

static void fill_plain(const Scan *scan, const Asked *asked, float *scores) {
    for (Py_ssize_t block = 0; block < scan->blocks; block++) plain_scores(scan, asked, block, scores + block * LANES);
}

#if RECO_X86
FOR_AVX512 static Py_ssize_t skip_avx512(const Scan *scan, const Asked *asked, Py_ssize_t block, Py_ssize_t end,
                                         float least, uint32_t *may) {
    for (; block < end; block++) {
        if (asked->length * scan->reach[block] <= least) return -1;
        const __m512 cut = _mm512_set1_ps(cut_of(scan, asked, block, least));
        const uint32_t bits = _mm512_cmp_ps_mask(avx512_scores(scan, asked, block), cut, _CMP_GT_OQ);
        if (bits) {
            *may = bits;
            return block;
        }
    }
    return -1;
}

FOR_AVX512 static void fill_avx512(const Scan *scan, const Asked *asked, float *scores) {
    for (Py_ssize_t block = 0; block < scan->blocks; block++)
        _mm512_store_ps(scores + block * LANES, avx512_scores(scan, asked, block));
}

FOR_AVX2 static Py_ssize_t skip_avx2(const Scan *scan, const Asked *asked, Py_ssize_t block, Py_ssize_t end, float least,
                                     uint32_t *may) {
    for (; block < end; block++) {
        if (asked->length * scan->reach[block] <= least) return -1;
        const __m256 cut = _mm256_set1_ps(cut_of(scan, asked, block, least));
        __m256 scores[2];
        avx2_scores(scan, asked, block, scores);
        uint32_t bits = 0;
        for (int half = 0; half < 2; half++)
            bits |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(scores[half], cut, _CMP_GT_OQ)) << (half * 8);
        if (bits) {
            *may = bits;
            return block;
        }
    }
    return -1;
}

FOR_AVX2 static void fill_avx2(const Scan *scan, const Asked *asked, float *scores) {
    for (Py_ssize_t block = 0; block < scan->blocks; block++) {
        __m256 both[2];
        avx2_scores(scan, asked, block, both);
        for (int half = 0; half < 2; half++) _mm256_store_ps(scores + block * LANES + half * 8, both[half]);
    }
}
#endif

static Skip skip_here(void) {
#if RECO_X86
    if (instructions == AVX512_VNNI) return skip_avx512;
    if (instructions == AVX2) return skip_avx2;
#endif
    return skip_plain;
}

void scan_codes(const Scan *scan, const Asked *asked, float *scores) {
#if RECO_X86
    if (instructions == AVX512_VNNI) {
        fill_avx512(scan, asked, scores);
        return;
    }
    if (instructions == AVX2) {
        fill_avx2(scan, asked, scores);
        return;
    }
#endif
    fill_plain(scan, asked, scores);
}

static int query_most(void) { return instructions == AVX2 ? NARROW_MOST : 127; }

/* The inner product, in sixteen sums that are then added in pairs: the same bits everywhere. */
static INLINE float product(const float *a, const float *b, Py_ssize_t dim) {
    float sums[16] = {0};
    Py_ssize_t at = 0;
    for (; at + 16 <= dim; at += 16)
        for (int lane = 0; lane < 16; lane++) sums[lane] += a[at + lane] * b[at + lane];
    for (int lane = 0; at + lane < dim; lane++) sums[lane] += a[at + lane] * b[at + lane];
    for (int width = 8; width > 0; width /= 2)
        for (int lane = 0; lane < width; lane++) sums[lane] += sums[lane + width];
    return sums[0];
}

/* Zeros on a whole line of the cache; many of them on large pages where the system gives such, as these are filled with
   fewer faults and read with fewer misses. calloc leaves memory that comes fresh from the system untouched. */
void *aligned_zeros(size_t size) {
    const size_t alignment = size < LARGE_PAGE ? 64 : LARGE_PAGE;
    char *whole = calloc(1, size + alignment + sizeof whole);
    if (whole == NULL) return NULL;
    char *found = whole + sizeof whole;
    found += (alignment - (uintptr_t)found % alignment) % alignment;
    memcpy(found - sizeof whole, &whole, sizeof whole);
#if defined(MADV_HUGEPAGE)
    /* Refused, it stays as it was. */
    if (size >= LARGE_PAGE) (void)madvise(found, size / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE);
#endif
    return found;
}

void aligned_free(void *found) {
    void *whole = NULL;
    if (found != NULL) memcpy(&whole, (char *)found - sizeof whole, sizeof whole);
    free(whole);
}

/* More than float32 rounds away, as a share of |q| |v|: of a product in full, some (dim / 16 + 5) units of 1.2e-7; of a
   score by codes, four roundings of 6e-8 of numbers that codes of one sign make up to 2 sqrt(dim) times as large. */
static double rounding(Py_ssize_t dim) { return 1e-5 + 1e-6 * sqrt((double)dim) + 1e-8 * (double)dim; }

static float upward(double value) { return (float)(value * (1.0 + 1e-6)); }

/* How many codes a unit is; 0, which codes all as nothing, where there is nothing or so little that it overflows. */
static float inverse_of(float most, float codes) {
    const float inverse = most > 0 ? codes / most : 0;
    return isfinite(inverse) ? inverse : 0;
}

/* Never NaN, unlike a comparison the other way round. */
static INLINE float larger(float most, float value) { return value > most ? value : most; }

/* The nearest code. What it leaves out is measured afterwards, so it need not be the nearest to the last bit. */
static INLINE int code_of(float value, float inverse, int most) {
    const float place = value * inverse;
    const int code = (int)(place + (place < 0 ? -0.5f : 0.5f));
    return code < -most ? -most : code > most ? most : code;
}

/* What a vector's code leaves out and what it says, squared, and the vector's own square. Sums are kept apart in
   sixteen, as in `product`, and added in the same order everywhere. */
typedef struct {
    float scale;
    int32_t sum, square_of_codes;
    double left_out, square;
} Coded;

/* Write a vector's code to `row`. */
static INLINE Coded code_row(const float *vector, Py_ssize_t dim, int8_t *row) {
    float most[LANES] = {0};
    double left_out[LANES] = {0}, square[LANES] = {0};
    int32_t sum[LANES] = {0}, squares[LANES] = {0};
    Py_ssize_t at = 0;
    for (; at + LANES <= dim; at += LANES)
        EACH_LANE
        for (int lane = 0; lane < LANES; lane++) most[lane] = larger(most[lane], fabsf(vector[at + lane]));
    for (int lane = 0; at + lane < dim; lane++) most[lane] = larger(most[lane], fabsf(vector[at + lane]));
    for (int lane = 1; lane < LANES; lane++) most[0] = larger(most[0], most[lane]);
    Coded coded = {.scale = most[0] / CODE_MOST};
    const float inverse = inverse_of(most[0], CODE_MOST);
    const double scale = coded.scale;
    for (at = 0; at < dim; at += LANES) {
        const int lanes = dim - at < LANES ? (int)(dim - at) : LANES;
        float values[LANES] = {0};
        int32_t codes[LANES];
        if (lanes == LANES)
            memcpy(values, vector + at, sizeof values);
        else
            memcpy(values, vector + at, (size_t)lanes * sizeof *values);
        EACH_LANE
        for (int lane = 0; lane < LANES; lane++) codes[lane] = code_of(values[lane], inverse, (int)CODE_MOST);
        EACH_LANE
        for (int lane = 0; lane < LANES; lane++) {
            sum[lane] += codes[lane];
            squares[lane] += codes[lane] * codes[lane];
        }
        EACH_LANE
        for (int lane = 0; lane < LANES; lane++) {
            const double value = values[lane], rest = value - scale * codes[lane];
            left_out[lane] += rest * rest;
            square[lane] += value * value;
        }
        EACH_LANE
        for (int lane = 0; lane < LANES; lane++) row[at + lane] = (int8_t)codes[lane];
    }
    EACH_LANE
    for (int lane = 0; lane < LANES; lane++) {
        coded.sum += sum[lane];
        coded.square_of_codes += squares[lane];
        coded.left_out += left_out[lane];
        coded.square += square[lane];
    }
    return coded;
}

/* `row`: room for a vector's code, up to the next LANES. */
RECO_WIDE static void encode(Scan *scan, int8_t *row) {
    const Py_ssize_t dim = scan->dim, groups = scan->groups;
    const double share = rounding(dim);
    for (Py_ssize_t block = 0; block < scan->blocks; block++) {
        double left_out = 0, said = 0, largest = 0;
        int8_t *codes = scan->codes + block * groups * LANES * GROUP;
        for (int lane = 0; lane < LANES; lane++) {
            const Py_ssize_t at = block * LANES + lane;
            if (at >= scan->n) {
                scan->shift[at] = INFINITY; /* scores below everything */
                continue;
            }
            const float *vector = scan->exact + at * dim;
            const Coded coded = code_row(vector, dim, row);
            for (Py_ssize_t group = 0; group < groups; group++)
                memcpy(codes + group * LANES * GROUP + lane * GROUP, row + group * GROUP, GROUP);
            scan->scale[at] = coded.scale;
            scan->shift[at] = coded.scale * (float)coded.sum;
            if (scan->squared) scan->half[at] = product(vector, vector, dim) / 2;
            const double length = (double)coded.scale * coded.scale * coded.square_of_codes;
            left_out = coded.left_out > left_out ? coded.left_out : left_out;
            said = length > said ? length : said;
            largest = coded.square > largest ? coded.square : largest;
        }
        scan->left_out[block] = upward(sqrt(left_out) + share * sqrt(largest));
        scan->coded[block] = upward(sqrt(said));
        scan->half_rounding[block] = scan->squared ? upward(share * (largest / 2)) : 0;
        scan->reach[block] = upward(sqrt(largest) * (1.0 + share));
    }
    float reach = 0;
    for (Py_ssize_t block = scan->blocks - 1; block >= 0; block--) {
        reach = larger(reach, scan->reach[block]);
        scan->reach[block] = scan->squared ? INFINITY : reach;
    }
}

static void scan_free(Scan *scan) {
    aligned_free(scan->codes);
    aligned_free(scan->scale);
    aligned_free(scan->banned);
    cells_free(scan);
    Py_XDECREF(scan->vectors);
    Py_XDECREF(scan->rows);
    Py_XDECREF(scan->positions);
    Py_TYPE(scan)->tp_free((PyObject *)scan);
}

static int take_rows(Scan *scan, PyObject *rows, PyObject *positions) {
    if (rows == Py_None) {
        scan->n_rows = scan->n;
        return 0;
    }
    scan->row_of = array_data(rows, NPY_INT32, 1, "rows");
    scan->position_of = array_data(positions, NPY_INT32, 1, "positions");
    if (scan->row_of == NULL || scan->position_of == NULL) return -1;
    scan->n_rows = LENGTH(positions);
    if (LENGTH(rows) != scan->n) {
        PyErr_SetString(PyExc_ValueError, "rows: not one a vector");
        return -1;
    }
    for (Py_ssize_t at = 0; at < scan->n; at++) {
        if (scan->row_of[at] < 0 || scan->row_of[at] >= scan->n_rows) {
            PyErr_Format(PyExc_ValueError, "rows: no row %d among %zd", (int)scan->row_of[at], scan->n_rows);
            return -1;
        }
    }
    for (Py_ssize_t row = 0; row < scan->n_rows; row++) {
        if (scan->position_of[row] < -1 || scan->position_of[row] >= scan->n) {
            PyErr_Format(PyExc_ValueError, "positions: no vector %d", (int)scan->position_of[row]);
            return -1;
        }
    }
    scan->rows = Py_NewRef(rows);
    scan->positions = Py_NewRef(positions);
    return 0;
}

static PyObject *scan_new(PyTypeObject *type, PyObject *args, PyObject *named) {
    static char *names[] = {"vectors", "squared", "rows", "positions", "centroids", "starts", NULL};
    PyObject *vectors, *rows = Py_None, *positions = Py_None, *centroids = Py_None, *starts = Py_None;
    int squared;
    if (!PyArg_ParseTupleAndKeywords(args, named, "Op|OOOO", names, &vectors, &squared, &rows, &positions, &centroids,
                                     &starts))
        return NULL;
    const float *exact = array_data(vectors, NPY_FLOAT32, 2, "vectors");
    if (exact == NULL) return NULL;
    Scan *scan = (Scan *)type->tp_alloc(type, 0);
    if (scan == NULL) return NULL;
    scan->exact = exact;
    scan->vectors = Py_NewRef(vectors);
    scan->n = PyArray_DIM((PyArrayObject *)vectors, 0);
    scan->dim = PyArray_DIM((PyArrayObject *)vectors, 1);
    scan->squared = squared;
    scan->groups = (scan->dim + GROUP - 1) / GROUP;
    scan->blocks = (scan->n + LANES - 1) / LANES;
    if (scan->n > INT32_MAX - LANES || scan->dim > 65536) {
        Py_DECREF(scan);
        return PyErr_Format(PyExc_ValueError, "vectors: too many, or too wide");
    }
    if (take_rows(scan, rows, positions) < 0 || cells_take(scan, centroids, starts) < 0) {
        Py_DECREF(scan);
        return NULL;
    }
    size_t lanes = (size_t)scan->blocks * LANES, blocks = (size_t)scan->blocks;
    size_t numbers = 3 * lanes + 4 * blocks;
    scan->codes = aligned_zeros(lanes * (size_t)scan->groups * GROUP);
    scan->scale = aligned_zeros(numbers * sizeof(float));
    scan->banned = aligned_zeros((lanes + 63) / 64 * sizeof(uint64_t));
    if (scan->codes == NULL || scan->scale == NULL || scan->banned == NULL) {
        Py_DECREF(scan);
        return PyErr_NoMemory();
    }
    scan->shift = scan->scale + lanes;
    scan->half = scan->shift + lanes;
    scan->left_out = scan->half + lanes;
    scan->coded = scan->left_out + blocks;
    scan->half_rounding = scan->coded + blocks;
    scan->reach = scan->half_rounding + blocks;
    int8_t *row = aligned_zeros((size_t)(scan->dim + LANES));
    if (row == NULL) {
        Py_DECREF(scan);
        return PyErr_NoMemory();
    }
    Py_BEGIN_ALLOW_THREADS;
    encode(scan, row);
    Py_END_ALLOW_THREADS;
    aligned_free(row);
    return (PyObject *)scan;
}

Asked scan_ask(const Scan *scan, const float *query, int most_code, uint8_t *code) {
    float most = 0;
    double square = 0, rest_square = 0;
    for (Py_ssize_t d = 0; d < scan->dim; d++) {
        most = fmaxf(most, fabsf(query[d]));
        square += (double)query[d] * query[d];
    }
    const int zero = most_code + 1;
    const float step = most / (float)most_code, inverse = inverse_of(most, (float)most_code);
    memset(code, zero, (size_t)scan->groups * GROUP);
    for (Py_ssize_t d = 0; d < scan->dim; d++) {
        const int place = code_of(query[d], inverse, most_code);
        const double rest = query[d] - (double)step * place;
        code[d] = (uint8_t)(place + zero);
        rest_square += rest * rest;
    }
    Asked asked = {code, step, (float)zero, upward(sqrt(square)), upward(sqrt(rest_square))};
    return asked;
}

static int ban(Scan *scan, const int32_t *rows, Py_ssize_t count, int banned) {
    for (Py_ssize_t at = 0; at < count; at++) {
        int32_t row = rows[at];
        if (row < 0 || row >= scan->n_rows) return -1;
        int32_t position = scan->position_of == NULL ? row : scan->position_of[row];
        if (position < 0) continue;
        if (banned)
            scan->banned[position >> 6] |= (uint64_t)1 << (position & 63);
        else
            scan->banned[position >> 6] &= ~((uint64_t)1 << (position & 63));
    }
    return 0;
}

static inline float score_at(const Scan *scan, const float *query, Py_ssize_t at) {
    return product(query, scan->exact + at * scan->dim, scan->dim) - scan->half[at];
}

static inline int is_blocked(const Scan *scan, const npy_bool *mask, Py_ssize_t at) {
    return (scan->banned[at >> 6] >> (at & 63) & 1) ||
           (mask != NULL && !mask[scan->row_of == NULL ? at : scan->row_of[at]]);
}

void scan_between(const Scan *scan, const float *query, const Asked *asked, const npy_bool *mask, Py_ssize_t begin,
                  Py_ssize_t end, Best *best, Py_ssize_t *n_blocked) {
    const Skip skip = skip_here();
    const Py_ssize_t end_block = (end + LANES - 1) / LANES;
    float least = best_least(best);
    uint32_t may = 0;
    Py_ssize_t block = begin / LANES;
    while (best->room > 0 && (block = skip(scan, asked, block, end_block, least, &may)) >= 0) {
        for (; may; may &= may - 1) {
#if defined(__GNUC__)
            int lane = __builtin_ctz(may);
#else
            int lane = 0;
            while (!(may >> lane & 1)) lane++;
#endif
            Py_ssize_t at = block * LANES + lane;
            if (at < begin || at >= end) continue;
            const int blocked = is_blocked(scan, mask, at);
            if (blocked && (n_blocked == NULL || *n_blocked == MOST_BLOCKED)) continue;
            float score = score_at(scan, query, at);
            if (blocked) {
                if (score > least) scan->blocked[(*n_blocked)++] = score;
            } else if (score > least) {
                best_offer(best, score, (int32_t)at);
                least = best_least(best);
            }
        }
        block++;
    }
}

static void search(Scan *scan, const float *query, const Asked *asked, const npy_bool *mask, Best *best) {
    scan_between(scan, query, asked, mask, 0, scan->n, best, NULL);
    const float least = best_least(best);
    /* What was read: all blocks, or those before the one whose reach ended it. */
    Py_ssize_t read = scan->blocks;
    if (!scan->squared) {
        Py_ssize_t low = 0;
        while (low < read) {
            Py_ssize_t middle = (low + read) / 2;
            if (asked->length * scan->reach[middle] <= least)
                read = middle;
            else
                low = middle + 1;
        }
    }
    scan->read = read * LANES < scan->n ? read * LANES : scan->n;
}

static PyObject *answer(const Scan *scan, const float *query, Best *best) {
    PyObject *both = best_answer(best);
    if (both == NULL) return NULL;
    int32_t *row = DATA(PyTuple_GET_ITEM(both, 0));
    float *score = DATA(PyTuple_GET_ITEM(both, 1));
    const float square = scan->squared ? product(query, query, scan->dim) : 0;
    for (Py_ssize_t at = 0; at < best->count; at++) {
        if (scan->row_of != NULL) row[at] = scan->row_of[row[at]];
        /* |q - v|^2 = |q|^2 - 2 (q.v - |v|^2 / 2): ranking by the bracket ranks by falling distance. */
        if (scan->squared) score[at] = 2 * score[at] - square;
    }
    return both;
}

static const float *query_of(const Scan *scan, PyObject *query) {
    const float *data = array_data(query, NPY_FLOAT32, 1, "query");
    if (data != NULL && LENGTH(query) != scan->dim) {
        PyErr_Format(PyExc_ValueError, "query: %zd numbers for %zd dimensions", (Py_ssize_t)LENGTH(query), scan->dim);
        return NULL;
    }
    return data;
}

/* `n_probe`: how many cells; 0: all that can hold one of the best. */
static PyObject *searched(Scan *scan, PyObject *const *args, Py_ssize_t n_probe) {
    const float *query = query_of(scan, args[0]);
    Py_ssize_t n = PyLong_AsSsize_t(args[1]);
    if (query == NULL || (n == -1 && PyErr_Occurred())) return NULL;
    const int32_t *excluded = NULL;
    Py_ssize_t n_excluded = 0;
    if (args[2] != Py_None) {
        excluded = array_data(args[2], NPY_INT32, 1, "excluded");
        if (excluded == NULL) return NULL;
        n_excluded = LENGTH(args[2]);
    }
    const npy_bool *mask = NULL;
    if (args[3] != Py_None) {
        mask = array_data(args[3], NPY_BOOL, 1, "mask");
        if (mask == NULL) return NULL;
        if (LENGTH(args[3]) != scan->n_rows) return PyErr_Format(PyExc_ValueError, "mask: not one entry a row");
    }
    Best best;
    uint8_t small[2048], *code = small;
    const size_t width = (size_t)scan->groups * GROUP; /* of a code; cells are chosen by another */
    if (2 * width > sizeof small && (code = PyMem_Malloc(2 * width)) == NULL) return PyErr_NoMemory();
    if (best_open(&best, n < 0 ? 0 : n < scan->n ? n : scan->n) < 0) {
        if (code != small) PyMem_Free(code);
        return NULL;
    }
    PyObject *found = NULL;
    if (ban(scan, excluded, n_excluded, 1) < 0) {
        PyErr_SetString(PyExc_IndexError, "excluded: a row that the catalogue lacks");
    } else {
        Asked asked = scan_ask(scan, query, query_most(), code);
        if (n_probe == 0)
            search(scan, query, &asked, mask, &best);
        else
            cells_search(scan, query, &asked, mask, n_probe, code + width, &best);
        found = answer(scan, query, &best);
    }
    ban(scan, excluded, n_excluded, 0);
    best_close(&best);
    if (code != small) PyMem_Free(code);
    return found;
}

/* search(query, n, excluded or None, mask or None) -> (rows, scores) */
static PyObject *scan_search(Scan *scan, PyObject *const *args, Py_ssize_t n_args) {
    if (n_args != 4) return PyErr_Format(PyExc_TypeError, "search takes query, n, excluded, mask");
    return searched(scan, args, 0);
}

/* search_cells(query, n, excluded or None, mask or None, n_probe) -> (rows, scores) */
static PyObject *scan_search_cells(Scan *scan, PyObject *const *args, Py_ssize_t n_args) {
    if (n_args != 5) return PyErr_Format(PyExc_TypeError, "search_cells takes query, n, excluded, mask, n_probe");
    const Py_ssize_t n_probe = PyLong_AsSsize_t(args[4]);
    if (n_probe == -1 && PyErr_Occurred()) return NULL;
    if (n_probe < 1 || scan->centroids == NULL)
        return PyErr_Format(PyExc_ValueError, n_probe < 1 ? "n_probe: below 1" : "there are no cells");
    return searched(scan, args, n_probe);
}

/* scores(query, rows) -> float32, NaN where a row has no vector */
static PyObject *scan_scores(Scan *scan, PyObject *const *args, Py_ssize_t n_args) {
    if (n_args != 2) return PyErr_Format(PyExc_TypeError, "scores takes query, rows");
    const float *query = query_of(scan, args[0]);
    const int32_t *rows = array_data(args[1], NPY_INT32, 1, "rows");
    if (query == NULL || rows == NULL) return NULL;
    Py_ssize_t count = LENGTH(args[1]);
    PyObject *scores = new_array(count, NPY_FLOAT32);
    if (scores == NULL) return NULL;
    float *score = DATA(scores), square = scan->squared ? product(query, query, scan->dim) : 0;
    for (Py_ssize_t at = 0; at < count; at++) {
        if (rows[at] < 0 || rows[at] >= scan->n_rows) {
            Py_DECREF(scores);
            return PyErr_Format(PyExc_IndexError, "rows: a row that the catalogue lacks");
        }
        int32_t place = scan->position_of == NULL ? rows[at] : scan->position_of[rows[at]];
        if (place < 0) {
            score[at] = NAN;
            continue;
        }
        score[at] = score_at(scan, query, place);
        if (scan->squared) score[at] = 2 * score[at] - square;
    }
    return scores;
}

static PyObject *scan_read(Scan *scan, void *closure) {
    (void)closure;
    return PyLong_FromSsize_t(scan->read);
}

static PyMethodDef scan_methods[] = {
    {"search", (PyCFunction)(void (*)(void))scan_search, METH_FASTCALL, NULL},
    {"search_cells", (PyCFunction)(void (*)(void))scan_search_cells, METH_FASTCALL, NULL},
    {"scores", (PyCFunction)(void (*)(void))scan_scores, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef scan_properties[] = {
    {"read", (getter)scan_read, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject ScanType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "service.native._native.Scan",
    .tp_basicsize = sizeof(Scan),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = scan_new,
    .tp_dealloc = (destructor)scan_free,
    .tp_methods = scan_methods,
    .tp_getset = scan_properties,
};
