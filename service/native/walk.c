/* The first of a list that may be shown: one pass, and a table of what may not. */
#include "native.h"

/* Rows in a table of twice their number or more, by open addressing; NOTHING marks an empty slot. */
#define NOTHING (-1)
#define ON_STACK 512

static inline uint32_t slot_of(int32_t row, uint32_t last) { return ((uint32_t)row * 2654435769u >> 7) & last; }

static void table_fill(int32_t *table, uint32_t last, const int32_t *rows, Py_ssize_t count) {
    memset(table, 0xff, sizeof(int32_t) * ((size_t)last + 1));
    for (Py_ssize_t at = 0; at < count; at++) {
        if (rows[at] < 0) continue;
        uint32_t slot = slot_of(rows[at], last);
        while (table[slot] != NOTHING && table[slot] != rows[at]) slot = (slot + 1) & last;
        table[slot] = rows[at];
    }
}

static inline int table_has(const int32_t *table, uint32_t last, int32_t row) {
    uint32_t slot = slot_of(row, last);
    while (table[slot] != NOTHING) {
        if (table[slot] == row) return 1;
        slot = (slot + 1) & last;
    }
    return 0;
}

PyObject *first_eligible(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args) {
    if (n_args != 7) {
        PyErr_SetString(PyExc_TypeError, "first_eligible(items, scores, begin, end, n, excluded, mask)");
        return NULL;
    }
    const int32_t *items = array_data(args[0], NPY_INT32, 1, "items");
    if (items == NULL) return NULL;
    const float *scores = array_data(args[1], NPY_FLOAT32, 1, "scores");
    if (scores == NULL) return NULL;
    Py_ssize_t begin = PyLong_AsSsize_t(args[2]), end = PyLong_AsSsize_t(args[3]), n = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred()) return NULL;
    if (begin < 0 || end < begin || end > LENGTH(args[0]) || LENGTH(args[1]) != LENGTH(args[0]) || n < 0) {
        PyErr_SetString(PyExc_ValueError, "begin, end and n are not within the lists");
        return NULL;
    }
    const int32_t *excluded = array_data(args[5], NPY_INT32, 1, "excluded");
    if (excluded == NULL) return NULL;
    const npy_bool *mask = NULL;
    Py_ssize_t n_mask = 0;
    if (args[6] != Py_None) {
        if ((mask = array_data(args[6], NPY_BOOL, 1, "mask")) == NULL) return NULL;
        n_mask = LENGTH(args[6]);
    }
    Py_ssize_t n_excluded = LENGTH(args[5]);
    if (n_excluded > (Py_ssize_t)1 << 28) {
        PyErr_SetString(PyExc_ValueError, "excluded: too many rows");
        return NULL;
    }
    uint32_t size = 16;
    while (size < 2 * (uint32_t)n_excluded) size *= 2;
    if (n > end - begin) n = end - begin;
    int32_t small[ON_STACK], *table = small;
    Py_ssize_t few[64], *places = few, count = 0;
    PyObject *rows = NULL, *values = NULL, *both = NULL;
    if (size > ON_STACK && (table = PyMem_Malloc(sizeof(int32_t) * size)) == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (n > 64 && (places = PyMem_Malloc(sizeof(Py_ssize_t) * (size_t)n)) == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    table_fill(table, size - 1, excluded, n_excluded);
    for (Py_ssize_t at = begin; at < end && count < n; at++) {
        int32_t row = items[at];
        if (mask != NULL && (row < 0 || row >= n_mask || !mask[row])) continue;
        if (!table_has(table, size - 1, row)) places[count++] = at;
    }
    rows = new_array(count, NPY_INT32);
    values = new_array(count, NPY_FLOAT32);
    if (rows != NULL && values != NULL) {
        for (Py_ssize_t at = 0; at < count; at++) {
            ((int32_t *)DATA(rows))[at] = items[places[at]];
            ((float *)DATA(values))[at] = scores[places[at]];
        }
        both = PyTuple_Pack(2, rows, values);
    }
done:
    Py_XDECREF(rows);
    Py_XDECREF(values);
    if (table != small) PyMem_Free(table);
    if (places != few) PyMem_Free(places);
    return both;
}
