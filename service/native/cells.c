/* Search of some cells of an inverted file.

   Vectors stand in cells, each around a centroid. A query reads the cells whose centroids score highest, by their codes
   alone: the same cells on every processor, though not always all that hold one of the best. */
#include "scan.h"

int cells_take(Scan *scan, PyObject *centroids, PyObject *starts) {
    if (centroids == Py_None) return 0;
    if (!PyObject_TypeCheck(centroids, &ScanType)) {
        PyErr_SetString(PyExc_TypeError, "centroids: not a Scan");
        return -1;
    }
    Scan *of = (Scan *)centroids;
    scan->start = array_data(starts, NPY_INT32, 1, "starts");
    if (scan->start == NULL) return -1;
    int sound = of->dim == scan->dim && of->squared == scan->squared && of->row_of == NULL &&
                LENGTH(starts) == of->n + 1 && scan->start[0] == 0 && scan->start[of->n] == scan->n;
    for (Py_ssize_t cell = 0; sound && cell < of->n; cell++) sound = scan->start[cell] <= scan->start[cell + 1];
    if (!sound) {
        PyErr_SetString(PyExc_ValueError, "starts: no cells of these vectors around these centroids");
        return -1;
    }
    const size_t lanes = (size_t)of->blocks * LANES;
    scan->coarse = aligned_zeros(lanes * sizeof(float) + lanes * sizeof(uint64_t) + MOST_BLOCKED * sizeof(float));
    if (scan->coarse == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    scan->keys = (uint64_t *)(scan->coarse + lanes);
    scan->blocked = (float *)(scan->keys + lanes);
    scan->centroids = (Scan *)Py_NewRef(centroids);
    scan->starts = Py_NewRef(starts);
    return 0;
}

void cells_free(Scan *scan) {
    aligned_free(scan->coarse);
    Py_XDECREF((PyObject *)scan->centroids);
    Py_XDECREF(scan->starts);
}

/* A score's bits, so ordered that they rise with it, and the place, lower ones better. */
static inline uint64_t key_of(float score, Py_ssize_t place) {
    uint32_t bits;
    score += 0.0f; /* of -0 and 0 neither is better */
    memcpy(&bits, &score, sizeof bits);
    bits = bits >> 31 ? ~bits : bits | UINT32_C(0x80000000);
    return (uint64_t)bits << 32 | ~(uint32_t)place;
}

static inline Py_ssize_t place_of(uint64_t key) { return (Py_ssize_t) ~(uint32_t)key; }

/* Bring the `wanted` largest of `count` different keys to the front (Hoare, CACM 4:7, 1961, algorithm 65). */
static void select_largest(uint64_t *keys, Py_ssize_t count, Py_ssize_t wanted) {
    Py_ssize_t low = 0, high = count - 1;
    while (low < high) {
        const uint64_t pivot = keys[low + (high - low) / 2];
        Py_ssize_t left = low, right = high;
        while (left <= right) {
            while (keys[left] > pivot) left++;
            while (keys[right] < pivot) right--;
            if (left > right) break;
            const uint64_t moved = keys[left];
            keys[left++] = keys[right];
            keys[right--] = moved;
        }
        if (wanted - 1 <= right)
            high = right;
        else if (wanted - 1 >= left)
            low = left;
        else
            return;
    }
}

#define SAMPLED 8
#define FIRST_CELLS 8

/* Keys of `wanted` of the cells or more, the best of all; returns how many. */
static Py_ssize_t best_cells(const Scan *scan, Py_ssize_t wanted) {
    const Py_ssize_t n = scan->centroids->n;
    const float *scores = scan->coarse;
    uint64_t *keys = scan->keys;
    /* Every eighth cell tells what score as many as are wanted have, or nearly: few of the others need sorting. */
    Py_ssize_t sampled = 0, count = 0;
    for (Py_ssize_t at = 0; at < n; at += SAMPLED) keys[sampled++] = key_of(scores[at], at);
    const Py_ssize_t rank = wanted / SAMPLED + wanted / (4 * SAMPLED) + 8;
    float least = -INFINITY;
    if (rank < sampled) {
        select_largest(keys, sampled, rank);
        uint64_t worst = keys[0];
        for (Py_ssize_t at = 1; at < rank; at++) worst = keys[at] < worst ? keys[at] : worst;
        least = scores[place_of(worst)];
    }
    for (int again = 0; again < 2 && count < wanted; again++, least = -INFINITY) {
        count = 0;
        for (Py_ssize_t at = 0; at < n; at++) {
            keys[count] = key_of(scores[at], at);
            count += scores[at] >= least;
        }
    }
    return count;
}

/* As many cells as find the best ten of all hold fewer of the best hundred: of real and generated vectors alike, about
   the square root of ten times as many are needed. */
static Py_ssize_t cells_wanted(Py_ssize_t n_probe, Py_ssize_t n, Py_ssize_t n_blocked) {
    const double share = sqrt((double)(n + n_blocked) / 10);
    return (Py_ssize_t)ceil((double)n_probe * (share < 1 ? 1 : share));
}

void cells_search(Scan *scan, const float *query, const Asked *asked, const npy_bool *mask, Py_ssize_t n_probe,
                  uint8_t *code, Best *best) {
    const Py_ssize_t n_cells = scan->centroids->n;
    n_probe = n_probe < n_cells ? n_probe : n_cells;
    Py_ssize_t n_blocked = 0, probed = 0, count = 0;
    Py_ssize_t wanted = cells_wanted(n_probe, best->room, 0);
    scan->read = 0;
    /* Codes of a query that every processor can read choose the same cells everywhere. */
    const Asked coarse = scan_ask(scan, query, NARROW_MOST, code);
    scan_codes(scan->centroids, &coarse, scan->coarse);
    while (wanted > probed) {
        wanted = wanted < n_cells ? wanted : n_cells;
        if (wanted > count) {
            count = best_cells(scan, wanted);
            wanted = wanted < count ? wanted : count; /* fewer score a number where the query holds none */
            if (probed > 0) select_largest(scan->keys, count, probed); /* these again, and no others, in front */
        }
        select_largest(scan->keys + probed, count - probed, wanted - probed);
        if (probed == 0) select_largest(scan->keys, wanted, wanted < FIRST_CELLS ? wanted : FIRST_CELLS);
        if (wanted == probed) break;
        for (; probed < wanted; probed++) {
            const Py_ssize_t cell = place_of(scan->keys[probed]);
            const Py_ssize_t begin = scan->start[cell], end = scan->start[cell + 1];
            scan_between(scan, query, asked, mask, begin, end, best, &n_blocked);
            scan->read += end - begin;
        }
        Py_ssize_t above = 0;
        for (Py_ssize_t at = 0; at < n_blocked; at++) above += scan->blocked[at] > best_least(best);
        wanted = best->count < best->room || above == MOST_BLOCKED ? 4 * probed + 1
                                                                   : cells_wanted(n_probe, best->room, above);
    }
}
