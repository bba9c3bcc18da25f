/* Sums of regression trees, run over a whole pool of rows at once.

   Each different question ("is column 3 above 0.5?") is asked once, of all rows; its answers are one bit a row. The rows
   that reach a node are then an `and` of its parent's rows and an answer: a few words for a pool of some hundred rows,
   whatever the shape of the tree. (Bits for the comparisons of a forest, feature by feature, are QuickScorer's idea,
   Lucchese et al., SIGIR 2015; there they are masks of leaves, here of rows.) A row's leaves are added in float64, tree by
   tree. */
#include "native.h"

typedef struct {
    int32_t feature;
    float threshold;
    uint8_t nan_right;
} Question;

/* A node in the order of the walk: itself, all that is left of it, all that is right of it. Its rows stand in the
   scratch row `level`; there its right child's rows replace them, its left child's stand one level deeper. */
typedef struct {
    int32_t question; /* -1: a leaf */
    int32_t level;
    int32_t after; /* the first node that isn't below this one */
    float value;
} Node;

typedef struct {
    PyObject_HEAD
    Py_ssize_t n_nodes, n_trees, n_questions, n_features, levels; /* n_features: columns that they ask for */
    double bias;
    Node *nodes;
    int32_t *roots; /* (n_trees + 1) */
    Question *questions;
} Forest;

static int by_question(const void *a, const void *b) {
    const Question *left = a, *right = b;
    if (left->feature != right->feature) return left->feature < right->feature ? -1 : 1;
    if (left->nan_right != right->nan_right) return left->nan_right < right->nan_right ? -1 : 1;
    return left->threshold < right->threshold ? -1 : left->threshold > right->threshold;
}

static void forest_free(Forest *forest) {
    PyMem_Free(forest->nodes);
    PyMem_Free(forest->roots);
    PyMem_Free(forest->questions);
    Py_TYPE(forest)->tp_free((PyObject *)forest);
}

typedef struct {
    const int32_t *feature, *left, *right;
    const float *threshold, *value;
    const uint8_t *nan_right;
} Arrays;

/* Put a tree's nodes in the order of the walk. `stack` has room for its nodes. -1: it is no tree. */
static int lay_out(Forest *forest, const Arrays *arrays, Py_ssize_t begin, Py_ssize_t size, int32_t *stack) {
    Py_ssize_t depth = 0, placed = begin;
    stack[depth++] = 0;
    int32_t *levels = stack + size + 1;
    levels[0] = 0;
    while (depth > 0) {
        int32_t place = stack[--depth], level = levels[depth];
        if (placed >= begin + size) return -1;
        Node *node = forest->nodes + placed++;
        Py_ssize_t at = begin + place;
        node->level = level;
        node->value = arrays->value[at];
        node->question = -1;
        node->after = place; /* its place among the arrays, until `after` is known */
        if (level + 1 > forest->levels) forest->levels = level + 1;
        if (arrays->feature[at] < 0) continue;
        int32_t left = arrays->left[at], right = arrays->right[at];
        if (left <= place || right <= place || left >= size || right >= size) return -1;
        Question asked = {arrays->feature[at], arrays->threshold[at], arrays->nan_right[at]};
        Question *known = bsearch(&asked, forest->questions, (size_t)forest->n_questions, sizeof asked, by_question);
        if (known == NULL || depth + 2 > size) return -1;
        node->question = (int32_t)(known - forest->questions);
        stack[depth] = right;
        levels[depth++] = level;
        stack[depth] = left;
        levels[depth++] = level + 1;
    }
    /* From the back: a leaf ends with itself; an inner node where its right child does, which begins where its left ends. */
    for (Py_ssize_t at = placed - 1; at >= begin; at--) {
        Node *node = forest->nodes + at;
        if (node->question < 0)
            node->after = (int32_t)at + 1;
        else
            node->after = forest->nodes[forest->nodes[at + 1].after].after;
    }
    return placed == begin + size ? 0 : -1;
}

static int fill(Forest *forest, const int64_t *indptr, const Arrays *arrays) {
    Py_ssize_t n_inner = 0, largest = 0;
    for (Py_ssize_t at = 0; at < forest->n_nodes; at++) {
        if (arrays->feature[at] < 0) continue;
        if (isnan(arrays->threshold[at])) return -1;
        Question asked = {arrays->feature[at], arrays->threshold[at], arrays->nan_right[at]};
        forest->questions[n_inner++] = asked;
    }
    qsort(forest->questions, (size_t)n_inner, sizeof(Question), by_question);
    for (Py_ssize_t at = 0; at < n_inner; at++)
        if (at == 0 || by_question(forest->questions + at, forest->questions + forest->n_questions - 1) != 0)
            forest->questions[forest->n_questions++] = forest->questions[at];
    for (Py_ssize_t tree = 0; tree < forest->n_trees; tree++) {
        if (indptr[tree + 1] <= indptr[tree] || indptr[tree + 1] > forest->n_nodes) return -1;
        if (indptr[tree + 1] - indptr[tree] > largest) largest = indptr[tree + 1] - indptr[tree];
    }
    int32_t *stack = PyMem_Malloc(sizeof(int32_t) * 2 * (size_t)(largest + 2));
    if (stack == NULL) return -1;
    int fault = 0;
    for (Py_ssize_t tree = 0; tree < forest->n_trees && !fault; tree++) {
        forest->roots[tree] = (int32_t)indptr[tree];
        fault = lay_out(forest, arrays, indptr[tree], indptr[tree + 1] - indptr[tree], stack);
    }
    forest->roots[forest->n_trees] = (int32_t)forest->n_nodes;
    PyMem_Free(stack);
    return fault;
}

static PyObject *forest_new(PyTypeObject *type, PyObject *args, PyObject *named) {
    static char *names[] = {"indptr", "feature", "threshold", "nan_right", "left", "right", "value", "bias", NULL};
    PyObject *indptr, *feature, *threshold, *nan_right, *left, *right, *value;
    double bias;
    if (!PyArg_ParseTupleAndKeywords(args, named, "OOOOOOOd", names, &indptr, &feature, &threshold, &nan_right, &left,
                                     &right, &value, &bias))
        return NULL;
    const int64_t *starts = array_data(indptr, NPY_INT64, 1, "indptr");
    Arrays arrays = {
        .feature = array_data(feature, NPY_INT32, 1, "feature"),
    };
    if (starts == NULL || arrays.feature == NULL) return NULL;
    if ((arrays.threshold = array_data(threshold, NPY_FLOAT32, 1, "threshold")) == NULL) return NULL;
    if ((arrays.nan_right = array_data(nan_right, NPY_UINT8, 1, "nan_right")) == NULL) return NULL;
    if ((arrays.left = array_data(left, NPY_INT32, 1, "left")) == NULL) return NULL;
    if ((arrays.right = array_data(right, NPY_INT32, 1, "right")) == NULL) return NULL;
    if ((arrays.value = array_data(value, NPY_FLOAT32, 1, "value")) == NULL) return NULL;
    Py_ssize_t n_nodes = LENGTH(feature);
    if (LENGTH(indptr) < 1 || LENGTH(threshold) != n_nodes || LENGTH(nan_right) != n_nodes || LENGTH(left) != n_nodes ||
        LENGTH(right) != n_nodes || LENGTH(value) != n_nodes || starts[0] != 0 || starts[LENGTH(indptr) - 1] != n_nodes ||
        n_nodes > INT32_MAX / 2)
        return PyErr_Format(PyExc_ValueError, "indptr and the nodes' arrays do not fit one another");
    Forest *forest = (Forest *)type->tp_alloc(type, 0);
    if (forest == NULL) return NULL;
    forest->n_nodes = n_nodes;
    forest->n_trees = LENGTH(indptr) - 1;
    for (Py_ssize_t at = 0; at < n_nodes; at++)
        if (arrays.feature[at] >= forest->n_features) forest->n_features = (Py_ssize_t)arrays.feature[at] + 1;
    forest->bias = bias;
    forest->levels = 1;
    forest->nodes = PyMem_Calloc((size_t)n_nodes + 1, sizeof(Node));
    forest->roots = PyMem_Calloc((size_t)forest->n_trees + 1, sizeof(int32_t));
    forest->questions = PyMem_Calloc((size_t)n_nodes + 1, sizeof(Question));
    if (forest->nodes == NULL || forest->roots == NULL || forest->questions == NULL) {
        Py_DECREF(forest);
        return PyErr_NoMemory();
    }
    if (fill(forest, starts, &arrays) != 0) {
        Py_DECREF(forest);
        return PyErr_Format(PyExc_ValueError, "indptr and the nodes' arrays hold no trees");
    }
    return (PyObject *)forest;
}

/* Answers of some questions: bit r of a question's words, from the lowest, is row r's. Bits past the rows are of no account. */
typedef void (*Answer)(const Question *, Py_ssize_t, const float *, Py_ssize_t, uint64_t *, Py_ssize_t);

static void answer_plain(const Question *questions, Py_ssize_t count, const float *columns, Py_ssize_t width,
                         uint64_t *answers, Py_ssize_t words) {
    for (Py_ssize_t at = 0; at < count; at++) {
        const float *column = columns + questions[at].feature * width, threshold = questions[at].threshold;
        for (Py_ssize_t word = 0; word < words; word++) {
            uint64_t bits = 0;
            for (int bit = 0; bit < 64; bit++) {
                float value = column[word * 64 + bit];
                uint64_t right = questions[at].nan_right ? !(value <= threshold) : value > threshold;
                bits |= right << bit;
            }
            answers[at * words + word] = bits;
        }
    }
}

#if RECO_X86
__attribute__((target("avx512f"))) static void answer_avx512(const Question *questions, Py_ssize_t count,
                                                             const float *columns, Py_ssize_t width, uint64_t *answers,
                                                             Py_ssize_t words) {
    for (Py_ssize_t at = 0; at < count; at++) {
        const float *column = columns + questions[at].feature * width;
        const __m512 threshold = _mm512_set1_ps(questions[at].threshold);
        uint64_t *answer = answers + at * words;
        for (Py_ssize_t word = 0; word < words; word++) {
            uint64_t bits = 0;
            for (int part = 0; part < 4; part++) {
                __m512 values = _mm512_loadu_ps(column + word * 64 + part * 16);
                __mmask16 right = questions[at].nan_right ? _mm512_cmp_ps_mask(values, threshold, _CMP_NLE_UQ)
                                                          : _mm512_cmp_ps_mask(values, threshold, _CMP_GT_OQ);
                bits |= (uint64_t)right << (part * 16);
            }
            answer[word] = bits;
        }
    }
}

__attribute__((target("avx2"))) static void answer_avx2(const Question *questions, Py_ssize_t count, const float *columns,
                                                        Py_ssize_t width, uint64_t *answers, Py_ssize_t words) {
    for (Py_ssize_t at = 0; at < count; at++) {
        const float *column = columns + questions[at].feature * width;
        const __m256 threshold = _mm256_set1_ps(questions[at].threshold);
        uint64_t *answer = answers + at * words;
        for (Py_ssize_t word = 0; word < words; word++) {
            uint64_t bits = 0;
            for (int part = 0; part < 8; part++) {
                __m256 values = _mm256_loadu_ps(column + word * 64 + part * 8);
                __m256 right = questions[at].nan_right ? _mm256_cmp_ps(values, threshold, _CMP_NLE_UQ)
                                                       : _mm256_cmp_ps(values, threshold, _CMP_GT_OQ);
                bits |= (uint64_t)(uint32_t)_mm256_movemask_ps(right) << (part * 8);
            }
            answer[word] = bits;
        }
    }
}
#endif

static Answer answer_here(void) {
#if RECO_X86
    if (instructions == AVX512_VNNI) return answer_avx512;
    if (instructions == AVX2) return answer_avx2;
#endif
    return answer_plain;
}

static void add_leaf(double *totals, const uint64_t *rows, Py_ssize_t words, double value) {
    for (Py_ssize_t word = 0; word < words; word++) {
        double *total = totals + word * 64;
#if defined(__GNUC__)
        for (uint64_t bits = rows[word]; bits; bits &= bits - 1) total[__builtin_ctzll(bits)] += value;
#else
        for (int bit = 0; bit < 64; bit++)
            if (rows[word] >> bit & 1) total[bit] += value;
#endif
    }
}

static void walk(const Forest *forest, const uint64_t *answers, Py_ssize_t words, const uint64_t *all, uint64_t *rows,
                 double *totals) {
    for (Py_ssize_t tree = 0; tree < forest->n_trees; tree++) {
        memcpy(rows, all, sizeof(uint64_t) * (size_t)words);
        for (int32_t at = forest->roots[tree]; at < forest->roots[tree + 1];) {
            const Node *node = forest->nodes + at;
            uint64_t *here = rows + node->level * words;
            if (node->question < 0) {
                add_leaf(totals, here, words, node->value);
                at++;
                continue;
            }
            const uint64_t *answer = answers + node->question * words;
            uint64_t *left = here + words, any_left = 0, any_right = 0;
            for (Py_ssize_t word = 0; word < words; word++) {
                any_left |= left[word] = here[word] & ~answer[word];
                any_right |= here[word] &= answer[word];
            }
            at++;
            if (any_left == 0) at = any_right == 0 ? node->after : forest->nodes[at].after;
        }
    }
}

/* scores(columns) -> float64 (n,). columns: float32 (n_features, n), NaN where unknown */
static PyObject *forest_scores(Forest *forest, PyObject *columns) {
    const float *given = array_data(columns, NPY_FLOAT32, 2, "columns");
    if (given == NULL) return NULL;
    Py_ssize_t height = PyArray_DIM((PyArrayObject *)columns, 0), n = PyArray_DIM((PyArrayObject *)columns, 1);
    if (height < forest->n_features)
        return PyErr_Format(PyExc_ValueError, "columns: %zd where the trees ask for %zd", height, forest->n_features);
    PyObject *scores = new_array(n, NPY_FLOAT64);
    if (scores == NULL) return NULL;
    Py_ssize_t words = (n + 63) / 64, width = words * 64;
    size_t floats = (size_t)height * (size_t)width, marks = (size_t)(forest->n_questions + forest->levels + 2) * (size_t)words;
    float *padded = PyMem_Malloc(sizeof(float) * (floats + 1));
    uint64_t *answers = PyMem_Malloc(sizeof(uint64_t) * (marks + 1));
    double *totals = PyMem_Malloc(sizeof(double) * ((size_t)width + 1));
    if (padded == NULL || answers == NULL || totals == NULL) {
        Py_DECREF(scores);
        scores = PyErr_NoMemory();
    } else if (n > 0) {
        for (Py_ssize_t row = 0; row < height; row++) {
            memcpy(padded + row * width, given + row * n, sizeof(float) * (size_t)n);
            memset(padded + row * width + n, 0, sizeof(float) * (size_t)(width - n));
        }
        uint64_t *all = answers + forest->n_questions * words, *rows = all + words;
        memset(all, 0xff, sizeof(uint64_t) * (size_t)words);
        if (n % 64) all[words - 1] = ((uint64_t)1 << (n % 64)) - 1;
        for (Py_ssize_t row = 0; row < width; row++) totals[row] = 0;
        answer_here()(forest->questions, forest->n_questions, padded, width, answers, words);
        walk(forest, answers, words, all, rows, totals);
        double *score = DATA(scores);
        for (Py_ssize_t row = 0; row < n; row++) score[row] = totals[row] + forest->bias;
    }
    PyMem_Free(padded);
    PyMem_Free(answers);
    PyMem_Free(totals);
    return scores;
}

static PyObject *forest_questions(Forest *forest, void *closure) {
    (void)closure;
    return PyLong_FromSsize_t(forest->n_questions);
}

static PyMethodDef forest_methods[] = {
    {"scores", (PyCFunction)forest_scores, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef forest_properties[] = {
    {"n_questions", (getter)forest_questions, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject ForestType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "service.native._native.Forest",
    .tp_basicsize = sizeof(Forest),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = forest_new,
    .tp_dealloc = (destructor)forest_free,
    .tp_methods = forest_methods,
    .tp_getset = forest_properties,
};
