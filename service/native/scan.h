/* What the scan of codes (scan.c) and the search of cells (cells.c) share. */
#ifndef RECO_SCAN_H
#define RECO_SCAN_H
#include "native.h"

#define LANES 16
#define MOST_BLOCKED 4096

typedef struct Scan {
    PyObject_HEAD
    PyObject *vectors, *rows, *positions;
    const float *exact;
    const int32_t *row_of, *position_of; /* NULL: positions are rows */
    Py_ssize_t n, dim, n_rows, groups, blocks;
    int squared;
    int8_t *codes;                /* (blocks, groups, LANES, GROUP) */
    float *scale, *shift, *half;  /* (blocks * LANES): of a code; scale times the sum of its codes; |v|^2 / 2 */
    float *left_out, *coded;      /* (blocks): largest norm of what codes leave out (and rounding), and of what they say */
    float *half_rounding, *reach; /* (blocks): rounding of half; largest norm from here on */
    uint64_t *banned;             /* a bit a vector, all 0 between searches */
    Py_ssize_t read;              /* vectors whose codes the last search read */
    /* Of cells; without, `centroids` is NULL. */
    struct Scan *centroids;
    PyObject *starts;
    const int32_t *start; /* (centroids->n + 1): where each cell begins, and where the last ends */
    float *coarse;        /* centroids' scores by codes in a search, whole blocks */
    float *blocked;       /* (MOST_BLOCKED): scores of vectors in a search's way */
    uint64_t *keys;       /* room for one a centroid */
} Scan;

/* A query, coded. score of a vector <= step * (scale * dot - zero * shift) - half + bound of its block. */
typedef struct {
    const uint8_t *code;
    float step, zero, length, error;
} Asked;

/* The largest code of a query that every set of instructions can read: AVX2 adds two products in 16 bits. */
#define NARROW_MOST 63

/* Write a query's code, of numbers up to `most_code`; `code` has room for a code of `scan`'s. */
Asked scan_ask(const Scan *scan, const float *query, int most_code, uint8_t *code);
/* Scores by codes of all vectors; `scores` has room for whole blocks. */
void scan_codes(const Scan *scan, const Asked *asked, float *scores);
/* Offer the vectors at places `begin` to `end`. `n_blocked`: how many scores of such as may not be found were noted, of
   those that would have been among the best so far; NULL: don't. */
void scan_between(const Scan *scan, const float *query, const Asked *asked, const npy_bool *mask, Py_ssize_t begin,
                  Py_ssize_t end, Best *best, Py_ssize_t *n_blocked);
/* Zeros on a line of the cache, and their end. */
void *aligned_zeros(size_t size);
void aligned_free(void *found);

/* Take the cells that the vectors stand in; -1 with an exception set where they are others'. */
int cells_take(Scan *scan, PyObject *centroids, PyObject *starts);
void cells_free(Scan *scan);
/* Offer the vectors of the best `n_probe` cells; of more where more than ten are asked for, or where so many of the best
   may not be found that those which may stand further down. `code`: room for a code. */
void cells_search(Scan *scan, const float *query, const Asked *asked, const npy_bool *mask, Py_ssize_t n_probe,
                  uint8_t *code, Best *best);

#endif
