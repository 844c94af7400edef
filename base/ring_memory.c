/* SPDX-License-Identifier: Apache-2.0 */
/* ring_memory: the memory of a ring's buffers, which may be there before the ring. */
#include "base/ring_memory.h"

#include <sys/mman.h>

#define PAGE_BYTES 4096U  /* or more */
#define HUGE_BYTES MiB(2) /* of a huge page: of x86-64, and of arm64 with 4 KiB pages */

/* Huge pages halve what it costs to give it its pages. */
int ring_memory_map(RingMemory *ret, unsigned n, size_t each, Err *err) {
    RingMemory m = { 0 };
    void *p;

    if (__builtin_mul_overflow((size_t)n, each, &m.bytes) ||
        __builtin_add_overflow(m.bytes, HUGE_BYTES, &m.mapped_bytes))
        return err_set(err, -ENOMEM, "%u buffers of %zu bytes are more than the address space", n,
                       each);
    p = mmap(NULL, m.mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return err_errno(err, "cannot map %zu bytes of buffers", m.bytes);
    m.mapped = p;
    m.data = m.mapped + (HUGE_BYTES - (uintptr_t)m.mapped % HUGE_BYTES) % HUGE_BYTES;
    (void)madvise(m.data, m.bytes, MADV_HUGEPAGE); /* a kernel without them gives small ones */
    (void)madvise(
        m.data, m.bytes,
        MADV_DONTFORK); /* a child's copy must not split pages that the kernel writes from */
    *ret = m;
    return 0;
}

void ring_memory_fill(RingMemory *m, size_t from, size_t bytes) {
    size_t begin = MIN(from, m->bytes), end = begin + MIN(bytes, m->bytes - begin);
    volatile uint8_t *data = m->data;

    for (size_t i = begin; i < end; i += PAGE_BYTES)
        data[i] = 0;
}

void ring_memory_done(RingMemory *m) {
    if (m->mapped)
        (void)munmap(m->mapped, m->mapped_bytes);
    *m = (RingMemory){ 0 };
}
