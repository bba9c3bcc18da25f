/* The first of a list that may be shown: one pass, and a bit for each row that may not. */
#include "native.h"

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
    const Py_ssize_t n_excluded = LENGTH(args[5]);
    Py_ssize_t n_told = 0; /* rows of which the bits tell: from there on none is excluded */
    for (Py_ssize_t at = 0; at < n_excluded; at++)
        if (excluded[at] >= n_told) n_told = (Py_ssize_t)excluded[at] + 1;
    /* Everybody's list names the whole catalogue. */
    if (n_told > LENGTH(args[0])) n_told = LENGTH(args[0]);
    uint64_t *banned = banned_bits(excluded, n_excluded, n_told);
    if (banned == NULL) return NULL;
    if (n > end - begin) n = end - begin;
    Py_ssize_t few[64], *places = few, count = 0;
    PyObject *rows = NULL, *values = NULL, *both = NULL;
    if (n > 64 && (places = PyMem_Malloc(sizeof(Py_ssize_t) * (size_t)n)) == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t at = begin; at < end && count < n; at++) {
        const int32_t row = items[at];
        if (mask != NULL && (row < 0 || row >= n_mask || !mask[row])) continue;
        if (row >= 0 && row < n_told && banned[row >> 6] >> (row & 63) & 1) continue;
        places[count++] = at;
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
    PyMem_Free(banned);
    if (places != few) PyMem_Free(places);
    return both;
}
