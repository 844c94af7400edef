/* SPDX-License-Identifier: Apache-2.0 */
/* build_id: which build of a library this process has loaded. */
#include "base/build_id.h"

#include <elf.h>
#include <link.h>

#define ALIGNED(n) (((n) + 3) & ~(size_t)3) /* of names and contents of notes */

typedef struct Search {
    uintptr_t address;
    uint8_t *ret;
    size_t max, n;
} Search;

static const uint8_t *mapped(const struct dl_phdr_info *info, const ElfW(Phdr) * segment) {
    return (const uint8_t *)(uintptr_t)(info->dlpi_addr + segment->p_vaddr);
}

static bool holds(const struct dl_phdr_info *info, uintptr_t address) {
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t begin = (uintptr_t)mapped(info, segment);

        if (segment->p_type == PT_LOAD && address >= begin && address - begin < segment->p_memsz)
            return true;
    }
    return false;
}

static void read_notes(Search *s, const uint8_t *data, size_t n) {
    ElfW(Nhdr) note;

    while (s->n == 0 && n >= sizeof(note)) {
        const uint8_t *name = data + sizeof(note), *content;
        size_t size;

        memcpy(&note, data, sizeof(note));
        content = name + ALIGNED(note.n_namesz);
        size = sizeof(note) + ALIGNED(note.n_namesz) + ALIGNED(note.n_descsz);
        if (size > n)
            return;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof(ELF_NOTE_GNU) &&
            memcmp(name, ELF_NOTE_GNU, sizeof(ELF_NOTE_GNU)) == 0) {
            s->n = MIN((size_t)note.n_descsz, s->max);
            memcpy(s->ret, content, s->n);
        }
        data += size;
        n -= size;
    }
}

static int visit(struct dl_phdr_info *info, size_t size, void *arg) {
    Search *s = arg;

    (void)size;
    if (!holds(info, s->address))
        return 0;
    for (unsigned i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_NOTE)
            read_notes(s, mapped(info, &info->dlpi_phdr[i]), info->dlpi_phdr[i].p_memsz);
    return 1;
}

size_t build_id_of(const void *address, uint8_t *ret, size_t max) {
    Search s = { .address = (uintptr_t)address, .ret = ret, .max = max };

    (void)dl_iterate_phdr(visit, &s);
    return s.n;
}
