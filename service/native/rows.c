/* A check of a matrix's rows as lists: that none names an entry twice. */
#include "native.h"

#define SHORT 48

/* Every pair of a short row: no more than a few instructions an entry, and nothing but the row is read. */
static INLINE int short_row_has_twin(const int32_t *row, Py_ssize_t length) {
    int32_t twins = 0;
    for (Py_ssize_t one = 1; one < length; one++)
        for (Py_ssize_t other = 0; other < one; other++) twins |= row[other] == row[one];
    return twins;
}

/* The first row with a twin; n: none. `last`, by entry: 1 + the row that named it last. */
RECO_WIDE static Py_ssize_t find_twin(const int64_t *indptr, const int32_t *items, Py_ssize_t n, uint32_t *last) {
    for (Py_ssize_t row = 0; row < n; row++) {
        const Py_ssize_t begin = (Py_ssize_t)indptr[row], end = (Py_ssize_t)indptr[row + 1];
        if (end - begin <= SHORT) {
            if (short_row_has_twin(items + begin, end - begin)) return row;
            continue;
        }
        for (Py_ssize_t at = begin; at < end; at++) {
            if (last[items[at]] == (uint32_t)(row + 1)) return row;
            last[items[at]] = (uint32_t)(row + 1);
        }
    }
    return n;
}

static int rows_fit(const int64_t *indptr, Py_ssize_t n, const int32_t *items, Py_ssize_t count, Py_ssize_t width) {
    int falls = 0, outside = 0;
    for (Py_ssize_t row = 0; row < n; row++) falls |= indptr[row + 1] < indptr[row];
    for (Py_ssize_t at = 0; at < count; at++) outside |= items[at] < 0 || items[at] >= width;
    return !falls && !outside && indptr[0] == 0 && indptr[n] == count;
}

/* first_twin(indptr, items, width) -> the first row that names an entry twice, None: there is none */
PyObject *first_twin(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    (void)module;
    if (n_args != 3) return PyErr_Format(PyExc_TypeError, "first_twin takes indptr, items, width");
    const int64_t *indptr = array_data(args[0], NPY_INT64, 1, "indptr");
    const int32_t *items = array_data(args[1], NPY_INT32, 1, "items");
    if (indptr == NULL || items == NULL) return NULL;
    const Py_ssize_t width = PyLong_AsSsize_t(args[2]);
    if (width == -1 && PyErr_Occurred()) return NULL;
    const Py_ssize_t n = LENGTH(args[0]) - 1, count = LENGTH(args[1]);
    if (n < 0 || n >= (Py_ssize_t)UINT32_MAX || width < 0 || width > INT32_MAX)
        return PyErr_Format(PyExc_ValueError, "first_twin: no offsets, or too many rows or entries");
    uint32_t *last = calloc(width ? (size_t)width : 1, sizeof *last);
    if (last == NULL) return PyErr_NoMemory();
    Py_ssize_t row = n;
    int fit;
    Py_BEGIN_ALLOW_THREADS;
    fit = rows_fit(indptr, n, items, count, width);
    if (fit) row = find_twin(indptr, items, n, last);
    Py_END_ALLOW_THREADS;
    free(last);
    if (!fit) return PyErr_Format(PyExc_ValueError, "first_twin: offsets or entries do not fit");
    if (row == n) Py_RETURN_NONE;
    return PyLong_FromSsize_t(row);
}
