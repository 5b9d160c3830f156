# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Columns out of rows, and columns as Arrow's C data interface hands them on, without copies.

https://arrow.apache.org/docs/format/CDataInterface.html and CDataInterface/PyCapsuleInterface.html:
a record batch is one array of type struct with a child for each column.  Buffers are bytes objects,
kept alive by the arrays until the consumer releases them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strdup

cdef struct ArrowSchema:
    const char* format
    const char* name
    const char* metadata
    int64_t flags
    int64_t n_children
    ArrowSchema** children
    ArrowSchema* dictionary
    void (*release)(ArrowSchema*) noexcept
    void* private_data

cdef struct ArrowArray:
    int64_t length
    int64_t null_count
    int64_t offset
    int64_t n_buffers
    int64_t n_children
    const void** buffers
    ArrowArray** children
    ArrowArray* dictionary
    void (*release)(ArrowArray*) noexcept
    void* private_data


def gather(bytes rows, Py_ssize_t stride, Py_ssize_t offset, Py_ssize_t width):
    """The `width` bytes at `offset` of every row, one after another."""
    check(rows, stride, offset, width)
    cdef Py_ssize_t n = len(rows) // stride, i
    cdef bytes column = PyBytes_FromStringAndSize(NULL, n * width)
    cdef char* out = PyBytes_AS_STRING(column)
    cdef const char* row = PyBytes_AS_STRING(rows)
    row += offset
    with nogil:
        if width == 8:
            for i in range(n):
                memcpy(out + 8 * i, row + i * stride, 8)
        else:
            for i in range(n):
                memcpy(out + width * i, row + i * stride, width)
    return column


cdef int check(bytes rows, Py_ssize_t stride, Py_ssize_t offset, Py_ssize_t width) except -1:
    if stride <= 0 or offset < 0 or width <= 0 or offset + width > stride or len(rows) % stride:
        raise ValueError("no such column")
    return 0


def addresses(bytes rows, Py_ssize_t stride, Py_ssize_t offset, Py_ssize_t version_offset):
    """Offsets and characters of an address column, as `features.address` writes them."""
    check(rows, stride, offset, 16)
    check(rows, stride, version_offset, 1)
    cdef Py_ssize_t n = len(rows) // stride, i
    cdef bytes offsets = PyBytes_FromStringAndSize(NULL, 4 * (n + 1))
    cdef int32_t* ends = <int32_t*>PyBytes_AS_STRING(offsets)
    cdef bytes room = PyBytes_FromStringAndSize(NULL, 40 * n + 1)
    cdef char* out = PyBytes_AS_STRING(room)
    cdef const uint8_t* row = <const uint8_t*>PyBytes_AS_STRING(rows)
    cdef int32_t used = 0
    if 40 * n > 0x7FFFFFFF:
        raise ValueError("too many rows for one batch")
    with nogil:
        ends[0] = 0
        for i in range(n):
            if row[i * stride + version_offset] == 4:
                used += write4(out + used, row + i * stride + offset)
            else:
                used += write6(out + used, row + i * stride + offset)
            ends[i + 1] = used
    return offsets, room[:used]


cdef inline int write4(char* out, const uint8_t* a) noexcept nogil:
    cdef int i, at = 0
    for i in range(4):
        if i:
            out[at] = c"."
            at += 1
        if a[i] >= 100:
            out[at] = c"0" + a[i] // 100
            at += 1
        if a[i] >= 10:
            out[at] = c"0" + a[i] // 10 % 10
            at += 1
        out[at] = c"0" + a[i] % 10
        at += 1
    return at


cdef inline int write6(char* out, const uint8_t* a) noexcept nogil:
    """RFC 5952: the longest run of two or more zero groups, the first of equals, becomes "::"."""
    cdef int i, run = 0, best = -1, best_length = 1, at = 0, shift, group
    cdef bint started
    for i in range(9):
        if i < 8 and a[2 * i] == 0 and a[2 * i + 1] == 0:
            run += 1
            continue
        if run > best_length:
            best, best_length = i - run, run
        run = 0
    i = 0
    while i < 8:
        if i == best:
            out[at] = c":"
            out[at + 1] = c":"
            at += 2
            i += best_length
            continue
        if i and i != best + best_length:
            out[at] = c":"
            at += 1
        group = a[2 * i] << 8 | a[2 * i + 1]
        started = False
        for shift in range(12, -4, -4):
            if group >> shift & 0xF or started or shift == 0:
                out[at] = hexadecimal(group >> shift & 0xF)
                at += 1
                started = True
        i += 1
    return at


cdef inline char hexadecimal(int digit) noexcept nogil:
    return <char>(c"0" + digit if digit < 10 else c"a" + digit - 10)


cdef void release_schema(ArrowSchema* schema) noexcept:
    cdef int64_t i
    for i in range(schema.n_children):
        if schema.children[i].release != NULL:
            schema.children[i].release(schema.children[i])
        free(schema.children[i])
    free(schema.children)
    free(<void*>schema.format)
    free(<void*>schema.name)
    schema.release = NULL


cdef void release_array(ArrowArray* array) noexcept with gil:
    cdef int64_t i
    for i in range(array.n_children):
        if array.children[i].release != NULL:
            array.children[i].release(array.children[i])
        free(array.children[i])
    free(array.children)
    free(array.buffers)
    Py_XDECREF(<PyObject*>array.private_data)
    array.release = NULL


cdef void drop_schema(object capsule) noexcept:
    cdef ArrowSchema* schema = <ArrowSchema*>PyCapsule_GetPointer(capsule, b"arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


cdef void drop_array(object capsule) noexcept:
    cdef ArrowArray* array = <ArrowArray*>PyCapsule_GetPointer(capsule, b"arrow_array")
    if array.release != NULL:
        array.release(array)
    free(array)


cdef ArrowSchema* new_schema(bytes format, bytes name, Py_ssize_t children) except NULL:
    cdef ArrowSchema* schema = <ArrowSchema*>calloc(1, sizeof(ArrowSchema))
    if schema == NULL:
        raise MemoryError
    schema.format = strdup(format)
    schema.name = strdup(name)
    schema.children = <ArrowSchema**>calloc(children + 1, sizeof(ArrowSchema*))
    schema.release = release_schema
    if schema.format == NULL or schema.name == NULL or schema.children == NULL:
        release_schema(schema)
        free(schema)
        raise MemoryError
    return schema


cdef ArrowArray* new_array(list buffers, int64_t length, Py_ssize_t children) except NULL:
    cdef ArrowArray* array = <ArrowArray*>calloc(1, sizeof(ArrowArray))
    cdef Py_ssize_t i
    if array == NULL:
        raise MemoryError
    array.length = length
    # No value is missing, so the first buffer, which says which ones are, is absent.
    array.n_buffers = 1 + len(buffers)
    array.buffers = <const void**>calloc(array.n_buffers, sizeof(void*))
    array.children = <ArrowArray**>calloc(children + 1, sizeof(ArrowArray*))
    if array.buffers == NULL or array.children == NULL:
        free(array.buffers)
        free(array.children)
        free(array)
        raise MemoryError
    for i in range(len(buffers)):
        array.buffers[i + 1] = PyBytes_AS_STRING(buffers[i])
    Py_INCREF(buffers)
    array.private_data = <void*>buffers
    array.release = release_array
    return array


def schema_capsule(list fields):
    """The schema of (name, format) fields, as a capsule."""
    cdef ArrowSchema* schema = new_schema(b"+s", b"", len(fields))
    cdef object capsule = PyCapsule_New(schema, b"arrow_schema", drop_schema)
    for name, format in fields:
        schema.children[schema.n_children] = new_schema(format.encode(), name.encode(), 0)
        schema.n_children += 1
    return capsule


def capsules(list fields, list columns, int64_t length):
    """Schema and array of columns, each a list of its buffers (offsets before characters)."""
    if len(fields) != len(columns):
        raise ValueError("a column for each field")
    cdef ArrowArray* array = new_array([], length, len(columns))
    cdef object capsule = PyCapsule_New(array, b"arrow_array", drop_array)
    for column in columns:
        array.children[array.n_children] = new_array(column, length, 0)
        array.n_children += 1
    return schema_capsule(fields), capsule
