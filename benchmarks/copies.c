/* Counts the bytes that memcpy and memmove copy in a process that preloads this: what the programs and libraries in
   it ask of the C library by name, 32 bytes or more at a time.  Shorter copies are headers, and most are inlined.
   Built and preloaded by sealwire.bench.rows.copies. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>

enum { LEAST = 32 };

typedef void *copy(void *, const void *, size_t);

static atomic_ulong copied;
static copy *real_memcpy, *real_memmove;

/* Until the C library's own are found; compilers must not make a call of it. */
__attribute__((optimize("no-tree-loop-distribute-patterns"))) static void *plain(void *to, const void *from, size_t n)
{
    unsigned char *a = to;
    const unsigned char *b = from;
    if (a < b)
        for (size_t i = 0; i < n; i++)
            a[i] = b[i];
    else
        while (n--)
            a[n] = b[n];
    return to;
}

static copy *next(const char *name)
{
    static _Thread_local int looking;
    if (looking)
        return plain;
    looking = 1;
    copy *found = (copy *)dlsym(RTLD_NEXT, name);
    looking = 0;
    return found ? found : plain;
}

static void count(size_t n)
{
    if (n >= LEAST)
        atomic_fetch_add_explicit(&copied, n, memory_order_relaxed);
}

void *memcpy(void *to, const void *from, size_t n)
{
    count(n);
    if (!real_memcpy)
        real_memcpy = next("memcpy");
    return real_memcpy(to, from, n);
}

void *memmove(void *to, const void *from, size_t n)
{
    count(n);
    if (!real_memmove)
        real_memmove = next("memmove");
    return real_memmove(to, from, n);
}

unsigned long sealwire_copied(void)
{
    return copied;
}
