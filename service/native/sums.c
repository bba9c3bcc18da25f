/* Sums of a history's rows of an item-to-item matrix, sparse (CSR) or dense, and the best of many scores.

   Sparse rows are added in float64, dense ones in float32, in the order of the history: the same bits everywhere. */
#include "native.h"

typedef struct {
    PyObject_HEAD
    PyObject *kept[4]; /* the arrays that the pointers below belong to */
    Py_ssize_t n_items, n_recency;
    const int64_t *indptr;
    const int32_t *indices;
    const float *weights, *dense, *recency;
    double *sum;    /* (n_items), of a sparse matrix: valid where `met` says this search wrote it */
    uint32_t *met;  /* (n_items): the number of the search that met the item last */
    int32_t *order; /* (n_items): items in the order in which this search met them */
    float *scores;  /* (n_items), of a dense one */
    uint32_t search;
} Sums;

RECO_WIDE static void add_row(float *restrict sums, const float *restrict row, float weight, Py_ssize_t n) {
    for (Py_ssize_t at = 0; at < n; at++) sums[at] += weight * row[at];
}

/* Whether any of sixteen scores is at least `least`. */
static inline int any_reaches(const float *scores, float least) {
    int any = 0;
    for (int at = 0; at < 16; at++) any |= scores[at] >= least;
    return any;
}

static inline void consider(Best *best, const uint64_t *banned, const npy_bool *mask, float score, int32_t item) {
    if (!(score >= best_least(best)) || score == -INFINITY) return;
    if (banned[item >> 6] >> (item & 63) & 1) return;
    if (mask != NULL && !mask[item]) return;
    best_offer(best, score, item);
}

static void best_of(Best *best, const float *scores, Py_ssize_t n, const uint64_t *banned, const npy_bool *mask) {
    Py_ssize_t at = 0;
    for (; at + 16 <= n; at += 16) {
        if (!any_reaches(scores + at, best_least(best))) continue;
        for (int lane = 0; lane < 16; lane++) consider(best, banned, mask, scores[at + lane], (int32_t)(at + lane));
    }
    for (; at < n; at++) consider(best, banned, mask, scores[at], (int32_t)at);
}

/* What is to be left out: excluded rows or None, mask or None. -1 with an exception set. */
typedef struct {
    uint64_t *banned;
    const npy_bool *mask;
} Rules;

static int rules_of(Rules *rules, PyObject *excluded, PyObject *mask, Py_ssize_t n) {
    const int32_t *rows = NULL;
    Py_ssize_t n_rows = 0;
    if (excluded != Py_None) {
        rows = array_data(excluded, NPY_INT32, 1, "excluded");
        if (rows == NULL) return -1;
        n_rows = LENGTH(excluded);
    }
    rules->mask = NULL;
    if (mask != Py_None) {
        rules->mask = array_data(mask, NPY_BOOL, 1, "mask");
        if (rules->mask == NULL) return -1;
        if (LENGTH(mask) != n) {
            PyErr_SetString(PyExc_ValueError, "mask: not one entry a row");
            return -1;
        }
    }
    rules->banned = banned_bits(rows, n_rows, n);
    return rules->banned == NULL ? -1 : 0;
}

/* top(scores, n, excluded or None, mask or None) -> (rows, scores), best first; -infinity is never among them */
PyObject *top(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    (void)module;
    if (n_args != 4) return PyErr_Format(PyExc_TypeError, "top takes scores, n, excluded, mask");
    const float *scores = array_data(args[0], NPY_FLOAT32, 1, "scores");
    Py_ssize_t n = PyLong_AsSsize_t(args[1]);
    if (scores == NULL || (n == -1 && PyErr_Occurred())) return NULL;
    Py_ssize_t size = LENGTH(args[0]);
    Rules rules;
    Best best;
    if (rules_of(&rules, args[2], args[3], size) < 0) return NULL;
    PyObject *found = NULL;
    if (best_open(&best, n < 0 ? 0 : n < size ? n : size) == 0) {
        if (best.room > 0) best_of(&best, scores, size, rules.banned, rules.mask);
        found = best_answer(&best);
        best_close(&best);
    }
    PyMem_Free(rules.banned);
    return found;
}

static void sums_free(Sums *sums) {
    for (int at = 0; at < 4; at++) Py_XDECREF(sums->kept[at]);
    PyMem_Free(sums->sum);
    PyMem_Free(sums->met);
    PyMem_Free(sums->order);
    PyMem_Free(sums->scores);
    Py_TYPE(sums)->tp_free((PyObject *)sums);
}

static int take_sparse(Sums *sums, PyObject *indptr, PyObject *indices, PyObject *weights) {
    sums->indptr = array_data(indptr, NPY_INT64, 1, "indptr");
    sums->indices = array_data(indices, NPY_INT32, 1, "indices");
    sums->weights = array_data(weights, NPY_FLOAT32, 1, "weights");
    if (sums->indptr == NULL || sums->indices == NULL || sums->weights == NULL) return -1;
    Py_ssize_t entries = LENGTH(indices), n = sums->n_items;
    int fits = LENGTH(indptr) == n + 1 && LENGTH(weights) == entries && sums->indptr[0] == 0 &&
               sums->indptr[n] == entries;
    for (Py_ssize_t row = 0; fits && row < n; row++) fits = sums->indptr[row] <= sums->indptr[row + 1];
    for (Py_ssize_t at = 0; fits && at < entries; at++) fits = sums->indices[at] >= 0 && sums->indices[at] < n;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "indptr, indices, weights: no square CSR matrix of so many items");
        return -1;
    }
    sums->kept[0] = Py_NewRef(indptr);
    sums->kept[1] = Py_NewRef(indices);
    sums->kept[2] = Py_NewRef(weights);
    sums->sum = PyMem_Calloc((size_t)n + 1, sizeof(double));
    sums->met = PyMem_Calloc((size_t)n + 1, sizeof(uint32_t));
    sums->order = PyMem_Calloc((size_t)n + 1, sizeof(int32_t));
    if (sums->sum == NULL || sums->met == NULL || sums->order == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static int take_dense(Sums *sums, PyObject *dense) {
    sums->dense = array_data(dense, NPY_FLOAT32, 2, "dense");
    if (sums->dense == NULL) return -1;
    if (PyArray_DIM((PyArrayObject *)dense, 0) != sums->n_items || PyArray_DIM((PyArrayObject *)dense, 1) != sums->n_items) {
        PyErr_SetString(PyExc_ValueError, "dense: not square, or not of so many items");
        return -1;
    }
    sums->kept[0] = Py_NewRef(dense);
    sums->scores = PyMem_Calloc((size_t)sums->n_items + 1, sizeof(float));
    if (sums->scores == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static PyObject *sums_new(PyTypeObject *type, PyObject *args, PyObject *named) {
    static char *names[] = {"n_items", "recency", "indptr", "indices", "weights", "dense", NULL};
    PyObject *recency, *indptr = Py_None, *indices = Py_None, *weights = Py_None, *dense = Py_None;
    Py_ssize_t n_items;
    if (!PyArg_ParseTupleAndKeywords(args, named, "nO|OOOO", names, &n_items, &recency, &indptr, &indices, &weights, &dense))
        return NULL;
    if (n_items < 0 || n_items >= INT32_MAX) return PyErr_Format(PyExc_ValueError, "n_items: out of range");
    Sums *sums = (Sums *)type->tp_alloc(type, 0);
    if (sums == NULL) return NULL;
    sums->n_items = n_items;
    if (recency != Py_None) {
        sums->recency = array_data(recency, NPY_FLOAT32, 1, "recency");
        if (sums->recency == NULL) {
            Py_DECREF(sums);
            return NULL;
        }
        sums->n_recency = LENGTH(recency);
        sums->kept[3] = Py_NewRef(recency);
    }
    if ((dense != Py_None ? take_dense(sums, dense) : take_sparse(sums, indptr, indices, weights)) < 0) {
        Py_DECREF(sums);
        return NULL;
    }
    return (PyObject *)sums;
}

/* The items that count, and what each counts: the newest, where recency fades to nothing before them. */
typedef struct {
    const int32_t *items;
    Py_ssize_t count;
    const float *weights; /* NULL: 1 each */
} Counted;

static int counted_of(const Sums *sums, PyObject *history, Counted *counted) {
    counted->items = array_data(history, NPY_INT32, 1, "history");
    if (counted->items == NULL) return -1;
    counted->count = LENGTH(history);
    for (Py_ssize_t at = 0; at < counted->count; at++) {
        if (counted->items[at] < 0 || counted->items[at] >= sums->n_items) {
            PyErr_SetString(PyExc_IndexError, "history: a row that the catalogue lacks");
            return -1;
        }
    }
    counted->weights = NULL;
    if (sums->recency != NULL) {
        if (counted->count > sums->n_recency) {
            counted->items += counted->count - sums->n_recency;
            counted->count = sums->n_recency;
        }
        counted->weights = sums->recency + sums->n_recency - counted->count;
    }
    return 0;
}

static inline float weight_of(const Counted *counted, Py_ssize_t at) {
    return counted->weights == NULL ? 1.0f : counted->weights[at];
}

/* Add up sparse rows in `sum`; returns how many items were met, listed in `order`. */
static Py_ssize_t add_sparse(Sums *sums, const Counted *counted) {
    if (++sums->search == 0) { /* the numbers have gone round */
        memset(sums->met, 0, sizeof(uint32_t) * (size_t)sums->n_items);
        sums->search = 1;
    }
    Py_ssize_t n_met = 0;
    for (Py_ssize_t at = 0; at < counted->count; at++) {
        const double weight = weight_of(counted, at);
        const int64_t end = sums->indptr[counted->items[at] + 1];
        for (int64_t entry = sums->indptr[counted->items[at]]; entry < end; entry++) {
            const int32_t item = sums->indices[entry];
            const double part = (double)(float)(weight * sums->weights[entry]);
            if (sums->met[item] == sums->search) {
                sums->sum[item] += part;
            } else {
                sums->met[item] = sums->search;
                sums->sum[item] = part;
                sums->order[n_met++] = item;
            }
        }
    }
    return n_met;
}

static void add_dense(const Sums *sums, const Counted *counted, float *scores) {
    memset(scores, 0, sizeof(float) * (size_t)sums->n_items);
    for (Py_ssize_t at = 0; at < counted->count; at++)
        add_row(scores, sums->dense + (Py_ssize_t)counted->items[at] * sums->n_items, weight_of(counted, at), sums->n_items);
}

/* scores(history) -> float32 (n_items,): -infinity where a sparse matrix says nothing of an item */
static PyObject *sums_scores(Sums *sums, PyObject *history) {
    Counted counted;
    if (counted_of(sums, history, &counted) < 0) return NULL;
    PyObject *scores = new_array(sums->n_items, NPY_FLOAT32);
    if (scores == NULL) return NULL;
    float *score = DATA(scores);
    if (sums->dense != NULL) {
        add_dense(sums, &counted, score);
        return scores;
    }
    Py_ssize_t n_met = add_sparse(sums, &counted);
    for (Py_ssize_t item = 0; item < sums->n_items; item++) score[item] = -INFINITY;
    for (Py_ssize_t at = 0; at < n_met; at++) score[sums->order[at]] = (float)sums->sum[sums->order[at]];
    return scores;
}

/* best(history, n, excluded or None, mask or None) -> (rows, scores), best first */
static PyObject *sums_best(Sums *sums, PyObject *const *args, Py_ssize_t n_args) {
    if (n_args != 4) return PyErr_Format(PyExc_TypeError, "best takes history, n, excluded, mask");
    Counted counted;
    if (counted_of(sums, args[0], &counted) < 0) return NULL;
    Py_ssize_t n = PyLong_AsSsize_t(args[1]);
    if (n == -1 && PyErr_Occurred()) return NULL;
    Rules rules;
    Best best;
    if (rules_of(&rules, args[2], args[3], sums->n_items) < 0) return NULL;
    PyObject *found = NULL;
    if (best_open(&best, n < 0 ? 0 : n < sums->n_items ? n : sums->n_items) == 0) {
        if (best.room > 0 && sums->dense != NULL) {
            add_dense(sums, &counted, sums->scores);
            best_of(&best, sums->scores, sums->n_items, rules.banned, rules.mask);
        } else if (best.room > 0) {
            Py_ssize_t n_met = add_sparse(sums, &counted);
            for (Py_ssize_t at = 0; at < n_met; at++)
                consider(&best, rules.banned, rules.mask, (float)sums->sum[sums->order[at]], sums->order[at]);
        }
        found = best_answer(&best);
        best_close(&best);
    }
    PyMem_Free(rules.banned);
    return found;
}

/* pairs(history, rows) -> float32 (len(history), len(rows)): entries of the matrix, 0 where it has none */
static PyObject *sums_pairs(Sums *sums, PyObject *const *args, Py_ssize_t n_args) {
    if (n_args != 2) return PyErr_Format(PyExc_TypeError, "pairs takes history, rows");
    const int32_t *history = array_data(args[0], NPY_INT32, 1, "history");
    const int32_t *rows = array_data(args[1], NPY_INT32, 1, "rows");
    if (history == NULL || rows == NULL) return NULL;
    const Py_ssize_t height = LENGTH(args[0]), width = LENGTH(args[1]), n = sums->n_items;
    for (Py_ssize_t at = 0; at < height + width; at++) {
        int32_t row = at < height ? history[at] : rows[at - height];
        if (row < 0 || row >= n) return PyErr_Format(PyExc_IndexError, "pairs: a row that the catalogue lacks");
    }
    npy_intp shape[2] = {height, width};
    PyObject *pairs = PyArray_ZEROS(2, shape, NPY_FLOAT32, 0);
    if (pairs == NULL) return NULL;
    float *pair = DATA(pairs);
    if (sums->dense != NULL) {
        for (Py_ssize_t at = 0; at < height; at++, pair += width) {
            const float *row = sums->dense + (Py_ssize_t)history[at] * n;
            for (Py_ssize_t column = 0; column < width; column++) pair[column] = row[rows[column]];
        }
        return pairs;
    }
    if (++sums->search == 0) {
        memset(sums->met, 0, sizeof(uint32_t) * (size_t)n);
        sums->search = 1;
    }
    /* `order` holds the column of each row asked for, while `met` says that it is one. */
    for (Py_ssize_t column = 0; column < width; column++) {
        sums->met[rows[column]] = sums->search;
        sums->order[rows[column]] = (int32_t)column;
    }
    for (Py_ssize_t at = 0; at < height; at++, pair += width) {
        const int64_t end = sums->indptr[history[at] + 1];
        for (int64_t entry = sums->indptr[history[at]]; entry < end; entry++) {
            const int32_t item = sums->indices[entry];
            if (sums->met[item] == sums->search) pair[sums->order[item]] = sums->weights[entry];
        }
    }
    return pairs;
}

static PyMethodDef sums_methods[] = {
    {"scores", (PyCFunction)sums_scores, METH_O, NULL},
    {"best", (PyCFunction)(void (*)(void))sums_best, METH_FASTCALL, NULL},
    {"pairs", (PyCFunction)(void (*)(void))sums_pairs, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject SumsType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "service.native._native.Sums",
    .tp_basicsize = sizeof(Sums),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = sums_new,
    .tp_dealloc = (destructor)sums_free,
    .tp_methods = sums_methods,
};
