/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_unpack: any bytes as a layer: whatever is accepted has clean names and links that stay
 * inside. */
#include "oci/unpack.h"

#include "base/fs.h"

#include <fcntl.h>
#include <locale.h>

#define CONTENT_MAX MiB(4)
#define ENTRIES_MAX 1000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Bytes {
    const uint8_t *data;
    size_t n;
} Bytes;

static int next(void *arg, const uint8_t **ret, size_t *ret_n, Err *err) {
    Bytes *b = arg;

    (void)err;
    *ret = b->data;
    *ret_n = b->n;
    b->n = 0;
    return *ret_n > 0;
}

static int on_entry(void *arg, const LayerEntry *e, Err *err) {
    const bool *image = arg;

    (void)err;
    assert(path_is_safe_relative(e->path) || (e->type == ENTRY_TYPE_OPAQUE && !*e->path));
    assert(e->type != ENTRY_TYPE_SYMLINK || symlink_stays_inside(e->path, e->target) ||
           (*image && *e->target == '/'));
    assert(e->type != ENTRY_TYPE_HARDLINK || path_is_safe_relative(e->target));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_(seen_freep) Seen *seen = seen_new();
    _cleanup_(decoder_freep) Decoder *decoder = NULL;
    _cleanup_close_ int dir_fd = -EBADF;
    char path[] = "/tmp/mc-fuzz-unpack-XXXXXX";
    Bytes bytes = { data, size };
    bool image = size % 2;
    UnpackOptions o = {
        .name = "0", .image = image, .seen = seen, .on_entry = on_entry, .arg = &image
    };
    UnpackBudget budget;
    UnpackUsed used;
    Err err = { "" };
    int r;

    (void)setlocale(LC_CTYPE, "C.UTF-8");
    if (!mkdtemp(path))
        abort();
    dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    atomic_init(&budget.bytes, CONTENT_MAX);
    atomic_init(&budget.entries, ENTRIES_MAX);
    o.dir_fd = dir_fd;
    o.budget = &budget;
    decoder_new(&decoder, CODEC_NONE, next, &bytes);
    r = unpack_run(&o, decoder, &used, &err);
    assert(r >= 0 || *err.text);
    unpack_discard(&o, &used);
    assert(atomic_load(&budget.bytes) == CONTENT_MAX &&
           atomic_load(&budget.entries) == ENTRIES_MAX);
    if (rmdir(path) < 0) /* every file it made is gone */
        abort();
    return 0;
}
