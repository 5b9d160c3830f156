/* libFuzzer with an interpreter inside: the target is a C function of a compiled module, or a Python one. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

static int (*direct)(const uint8_t *, size_t);
static PyObject *called;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    Py_InitializeEx(0);
    PyObject *module = PyImport_ImportModule("tests.fuzzing.libfuzzer.inside");
    PyObject *target = module ? PyObject_CallMethod(module, "target", NULL) : NULL;
    if (!target) {
        PyErr_Print();
        exit(1);
    }
    if (PyLong_Check(target))
        direct = (int (*)(const uint8_t *, size_t))PyLong_AsVoidPtr(target);
    else
        called = target;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (direct)
        return direct(data, size);
    PyObject *done = PyObject_CallFunction(called, "y#", (const char *)data, (Py_ssize_t)size);
    if (!done) {
        PyErr_Print();
        abort();
    }
    Py_DECREF(done);
    return 0;
}
