/* What the parts of the extension share: numpy's C interface, argument checks, the best of many scores. */
#ifndef RECO_NATIVE_H
#define RECO_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_1_25_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL reco_native_array_api
#ifndef RECO_NATIVE_MODULE
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__)
#define RECO_X86 1
#include <immintrin.h>
#else
#define RECO_X86 0
#endif

/* Loops without reductions give the same bits at any vector width, so the widest the processor has may run them. */
#if RECO_X86 && defined(__gnu_linux__) && !defined(__clang__)
#define RECO_WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RECO_WIDE
#endif

/* Inside a loop that is compiled for several processors: compiled with it for each. */
#if defined(__GNUC__)
#define INLINE inline __attribute__((always_inline))
#else
#define INLINE inline
#endif

/* What the processor offers and we use; RECO_NATIVE_INSTRUCTIONS names less than that for tests and comparisons. */
enum { PLAIN = 0, AVX2 = 1, AVX512_VNNI = 2 };
extern int instructions;

/* A scored place. Better: the higher score; of equal ones the lower place. */
typedef struct {
    float score;
    int32_t place;
} Scored;

/* The best `room` of what was offered so far: a heap whose root is the worst of them. */
typedef struct {
    Scored *heap;
    Py_ssize_t count, room;
} Best;

int best_open(Best *best, Py_ssize_t room);
void best_close(Best *best);
void best_offer(Best *best, float score, int32_t place);
/* The score that another must exceed; -infinity while there is room. Places must be offered in rising order. */
static inline float best_least(const Best *best) {
    return best->count < best->room ? -INFINITY : best->heap[0].score;
}
/* (places, scores), best first: arrays of int32 and float32; NULL with an exception set. */
PyObject *best_answer(Best *best);

/* Borrowed data of a C-contiguous array of this type and number of dimensions; NULL with an exception set. */
void *array_data(PyObject *object, int type, int dimensions, const char *name);
#define LENGTH(object) PyArray_DIM((PyArrayObject *)(object), 0)
/* A bit a row of n: those that may not be shown. To be freed by PyMem_Free; NULL with an exception set. */
uint64_t *banned_bits(const int32_t *rows, Py_ssize_t count, Py_ssize_t n);
/* A new one-dimensional array; NULL with an exception set. */
PyObject *new_array(Py_ssize_t length, int type);
#define DATA(object) PyArray_DATA((PyArrayObject *)(object))

extern PyTypeObject ScanType, SumsType, ForestType;
PyObject *top(PyObject *module, PyObject *const *args, Py_ssize_t n_args);
PyObject *first_eligible(PyObject *module, PyObject *const *args, Py_ssize_t n_args);
PyObject *first_twin(PyObject *module, PyObject *const *args, Py_ssize_t n_args);
PyObject *graph_fault(PyObject *module, PyObject *const *args, Py_ssize_t n_args);

#endif
