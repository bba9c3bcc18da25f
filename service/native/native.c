/* The module: its types, and what they share. */
#define RECO_NATIVE_MODULE
#include "native.h"

int best_open(Best *best, Py_ssize_t room) {
    best->count = 0;
    best->room = room;
    best->heap = PyMem_Malloc(sizeof(Scored) * (size_t)(room ? room : 1));
    if (best->heap == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

void best_close(Best *best) { PyMem_Free(best->heap); }

static inline int worse(Scored a, Scored b) {
    return a.score < b.score || (a.score == b.score && a.place > b.place);
}

static void sink(Scored *heap, Py_ssize_t count, Py_ssize_t at) {
    Scored moved = heap[at];
    for (;;) {
        Py_ssize_t child = 2 * at + 1;
        if (child >= count) break;
        if (child + 1 < count && worse(heap[child + 1], heap[child])) child++;
        if (!worse(heap[child], moved)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

void best_offer(Best *best, float score, int32_t place) {
    Scored offered = {score, place};
    if (best->count < best->room) {
        Py_ssize_t at = best->count++;
        while (at > 0 && worse(offered, best->heap[(at - 1) / 2])) {
            best->heap[at] = best->heap[(at - 1) / 2];
            at = (at - 1) / 2;
        }
        best->heap[at] = offered;
    } else if (best->room > 0 && worse(best->heap[0], offered)) {
        best->heap[0] = offered;
        sink(best->heap, best->count, 0);
    }
}

static void best_sort(Best *best) {
    for (Py_ssize_t left = best->count - 1; left > 0; left--) {
        Scored worst = best->heap[0];
        best->heap[0] = best->heap[left];
        best->heap[left] = worst;
        sink(best->heap, left, 0);
    }
}

void *array_data(PyObject *object, int type, int dimensions, const char *name) {
    if (!PyArray_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: not an array", name);
        return NULL;
    }
    PyArrayObject *array = (PyArrayObject *)object;
    if (PyArray_TYPE(array) != type || PyArray_NDIM(array) != dimensions || !PyArray_IS_C_CONTIGUOUS(array) ||
        !PyArray_ISALIGNED(array) || PyArray_ISBYTESWAPPED(array)) {
        PyArray_Descr *wanted = PyArray_DescrFromType(type);
        PyErr_Format(PyExc_TypeError, "%s: wanted a contiguous array of %d dimensions and type %R, not %d and %R", name,
                     dimensions, wanted, PyArray_NDIM(array), PyArray_DESCR(array));
        Py_XDECREF(wanted);
        return NULL;
    }
    return PyArray_DATA(array);
}

PyObject *new_array(Py_ssize_t length, int type) {
    npy_intp shape[1] = {length};
    return PyArray_SimpleNew(1, shape, type);
}

PyObject *best_answer(Best *best) {
    PyObject *places = new_array(best->count, NPY_INT32), *scores = new_array(best->count, NPY_FLOAT32), *both = NULL;
    if (places != NULL && scores != NULL) {
        best_sort(best);
        for (Py_ssize_t at = 0; at < best->count; at++) {
            ((int32_t *)DATA(places))[at] = best->heap[at].place;
            ((float *)DATA(scores))[at] = best->heap[at].score;
        }
        both = PyTuple_Pack(2, places, scores);
    }
    Py_XDECREF(places);
    Py_XDECREF(scores);
    return both;
}

uint64_t *banned_bits(const int32_t *rows, Py_ssize_t count, Py_ssize_t n) {
    uint64_t *banned = PyMem_Calloc((size_t)(n + 63) / 64 + 1, sizeof(uint64_t));
    if (banned == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t at = 0; at < count; at++) {
        if (rows[at] < 0 || rows[at] >= n) {
            PyMem_Free(banned);
            PyErr_SetString(PyExc_IndexError, "excluded: a row that the catalogue lacks");
            return NULL;
        }
        banned[rows[at] >> 6] |= (uint64_t)1 << (rows[at] & 63);
    }
    return banned;
}

int instructions = PLAIN;

static const char *const INSTRUCTIONS[] = {"plain", "avx2", "avx512vnni"};

static void choose_instructions(void) {
#if RECO_X86
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        instructions = AVX512_VNNI;
    else if (__builtin_cpu_supports("avx2"))
        instructions = AVX2;
#endif
    const char *wanted = getenv("RECO_NATIVE_INSTRUCTIONS");
    for (int at = 0; wanted != NULL && at < instructions; at++)
        if (strcmp(wanted, INSTRUCTIONS[at]) == 0) instructions = at;
}

static PyMethodDef methods[] = {
    {"top", (PyCFunction)(void (*)(void))top, METH_FASTCALL, NULL},
    {"first_eligible", (PyCFunction)(void (*)(void))first_eligible, METH_FASTCALL, NULL},
    {"first_twin", (PyCFunction)(void (*)(void))first_twin, METH_FASTCALL, NULL},
    {"graph_fault", (PyCFunction)(void (*)(void))graph_fault, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "service.native._native", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) {
    import_array();
    choose_instructions();
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL) return NULL;
    if (PyModule_AddType(module, &ScanType) < 0 || PyModule_AddType(module, &SumsType) < 0 ||
        PyModule_AddType(module, &ForestType) < 0 ||
        PyModule_AddStringConstant(module, "INSTRUCTIONS", INSTRUCTIONS[instructions]) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
