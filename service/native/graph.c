/* A saved graph index, walked whole before the library that trusts it opens it. */
#include "native.h"

#define HEADER 96
#define TOO_MANY "an element has more links than allowed, or is marked deleted"

/* The file's parts; see docs/bundle.md, "Index". */
typedef struct {
    const uint8_t *file;
    size_t length, record_bytes, list_bytes;
    const float *vectors;
    uint32_t n, most, most_above;
    size_t dim;
} Graph;

/* What is wrong with it: a format for one element's number, or NULL. */
typedef struct {
    const char *reason;
    Py_ssize_t element;
} Fault;

static inline uint32_t read_u32(const uint8_t *at) {
    uint32_t found;
    memcpy(&found, at, sizeof found);
    return found;
}

/* A number of links, then as many; its third byte is a mark of deletion, so a marked one is too large. */
static const char *links_fault(const Graph *graph, const uint8_t *at, uint32_t most) {
    const uint32_t count = read_u32(at);
    if (count > most) return TOO_MANY;
    uint32_t outside = 0;
    for (uint32_t link = 0; link < count; link++) outside |= read_u32(at + 4 + 4 * (size_t)link) >= graph->n;
    return outside ? "a link points outside the index" : NULL;
}

static Fault records_fault(const Graph *graph, uint8_t *labelled) {
    const size_t vector_at = 4 + 4 * (size_t)graph->most, vector_bytes = 4 * graph->dim;
    for (uint32_t element = 0; element < graph->n; element++) {
        const uint8_t *record = graph->file + HEADER + element * graph->record_bytes;
        const char *reason = links_fault(graph, record, graph->most);
        if (reason != NULL) return (Fault){reason, element};
        uint64_t label;
        memcpy(&label, record + vector_at + vector_bytes, sizeof label);
        if (label >= graph->n) return (Fault){"a label is out of range", element};
        if (labelled[label]) return (Fault){"a label occurs twice", element};
        labelled[label] = 1;
        if (memcmp(record + vector_at, graph->vectors + label * graph->dim, vector_bytes) != 0)
            return (Fault){"the index holds other vectors than the bundle", element};
    }
    return (Fault){NULL, 0};
}

/* `levels`: room for n, the highest level of each element. */
static Fault upper_levels_fault(const Graph *graph, uint32_t max_level, uint32_t entry_point, uint8_t *levels) {
    const size_t begin = HEADER + graph->n * graph->record_bytes;
    size_t at = begin;
    for (uint32_t element = 0; element < graph->n; element++) {
        if (graph->length - at < 4) return (Fault){"upper link lists end early", element};
        const size_t size = read_u32(graph->file + at);
        at += 4;
        if (size % graph->list_bytes || size > graph->length - at || size / graph->list_bytes > max_level)
            return (Fault){"upper link lists of element %zd have a wrong length", element};
        levels[element] = (uint8_t)(size / graph->list_bytes);
        at += size;
    }
    if (at != graph->length) return (Fault){"%zd bytes too many", (Py_ssize_t)(graph->length - at)};
    if (levels[entry_point] != max_level) return (Fault){"the entry point is not on the top level", 0};
    at = begin;
    for (uint32_t element = 0; element < graph->n; element++) {
        at += 4;
        for (uint32_t level = 1; level <= levels[element]; level++, at += graph->list_bytes) {
            const char *reason = links_fault(graph, graph->file + at, graph->most_above);
            if (reason != NULL) return (Fault){reason, element};
            const uint32_t count = read_u32(graph->file + at);
            for (uint32_t link = 0; link < count; link++)
                if (levels[read_u32(graph->file + at + 4 + 4 * (size_t)link)] < level)
                    return (Fault){"element %zd links to an element that is not on its level", element};
        }
    }
    return (Fault){NULL, 0};
}

/* graph_fault(file, vectors, m, max_level, entry_point) -> what is wrong, None: nothing */
PyObject *graph_fault(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    (void)module;
    if (n_args != 5) return PyErr_Format(PyExc_TypeError, "graph_fault takes file, vectors, m, max_level, entry_point");
    const uint8_t *file = array_data(args[0], NPY_UINT8, 1, "file");
    const float *vectors = array_data(args[1], NPY_FLOAT32, 2, "vectors");
    if (file == NULL || vectors == NULL) return NULL;
    const Py_ssize_t m = PyLong_AsSsize_t(args[2]), max_level = PyLong_AsSsize_t(args[3]);
    const Py_ssize_t entry_point = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred()) return NULL;
    const npy_intp *shape = PyArray_DIMS((PyArrayObject *)args[1]);
    if (m < 1 || m > 4096 || max_level < 0 || max_level > 63 || shape[0] < 1 || shape[0] > INT32_MAX ||
        entry_point < 0 || entry_point >= shape[0])
        return PyErr_Format(PyExc_ValueError, "graph_fault: a number is out of range");
    Graph graph = {.file = file, .length = (size_t)LENGTH(args[0]), .vectors = vectors, .n = (uint32_t)shape[0],
                   .dim = (size_t)shape[1], .most = 2 * (uint32_t)m, .most_above = (uint32_t)m};
    graph.record_bytes = 4 + 8 * (size_t)m + 4 * graph.dim + 8;
    graph.list_bytes = 4 + 4 * (size_t)m;
    if (graph.length < HEADER || (graph.length - HEADER) / (graph.record_bytes + 4) < graph.n)
        return PyUnicode_FromFormat("%zu bytes do not hold %u elements", graph.length, (unsigned)graph.n);
    uint8_t *marks = calloc(2, graph.n);
    if (marks == NULL) return PyErr_NoMemory();
    Fault fault;
    Py_BEGIN_ALLOW_THREADS;
    fault = records_fault(&graph, marks);
    if (fault.reason == NULL)
        fault = upper_levels_fault(&graph, (uint32_t)max_level, (uint32_t)entry_point, marks + graph.n);
    Py_END_ALLOW_THREADS;
    free(marks);
    if (fault.reason == NULL) Py_RETURN_NONE;
    return PyUnicode_FromFormat(fault.reason, fault.element);
}
