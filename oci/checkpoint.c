/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint: the file that says how far a tar layer is unpacked: proto/checkpoint.proto. */
#include "oci/checkpoint.h"

#include <fcntl.h>
#include <pthread.h>

#define MAGIC     "MCTARCP1"
#define SUMMED_AT offsetof(SlotHead, bytes)
#define NAME_MAX_ (DIGEST_HEX_MAX + sizeof(".tar"))
#define DURABLE   0 /* the slot */

typedef struct SlotHead {
    char magic[8];
    uint8_t sum[DIGEST_BYTES];
    uint32_t bytes;
} SlotHead;

struct Checkpoint {
    CheckpointOptions o;
    char name[NAME_MAX_];
    int fd;
    bool there;        /* the file of `fd` has its name */
    uint64_t sequence; /* of the last message that was saved or loaded */
    pthread_mutex_t mutex;
    unsigned newest; /* guarded: the slot of the last one that was saved; DURABLE: none yet */
    bool unsettled;  /* guarded: we have saved it, and it was not settled since */
};

void checkpoint_new(Checkpoint **ret, const CheckpointOptions *options) {
    Checkpoint *c = xnew(Checkpoint);

    c->o = *options;
    c->fd = -EBADF;
    (void)snprintf(c->name, sizeof(c->name), "%s.tar", DIGEST_HEX(&options->digest));
    (void)pthread_mutex_init(&c->mutex, NULL);
    *ret = c;
}

Checkpoint *checkpoint_free(Checkpoint *c) {
    if (!c)
        return NULL;
    (void)safe_close(c->fd);
    (void)pthread_mutex_destroy(&c->mutex);
    free(c);
    return NULL;
}

CheckpointMessage *checkpoint_message_free(CheckpointMessage *m) {
    if (m)
        modelcached__checkpoint__tar_checkpoint__free_unpacked(m, NULL);
    return NULL;
}

static off_t slot_at(unsigned slot) {
    return (off_t)(slot * CHECKPOINT_SLOT_BYTES);
}

/* The bytes of a slot: its length, or 0 when it is not whole. */
static size_t read_slot(int fd, unsigned slot, uint8_t *data) {
    ssize_t n = pread(fd, data, CHECKPOINT_SLOT_BYTES, slot_at(slot));
    SlotHead head;
    Digest sum;

    if (n < (ssize_t)sizeof(head))
        return 0;
    memcpy(&head, data, sizeof(head));
    if (memcmp(head.magic, MAGIC, sizeof(head.magic)) != 0 || head.bytes > (size_t)n - sizeof(head))
        return 0;
    digest_of(&sum, data + SUMMED_AT, sizeof(head) + head.bytes - SUMMED_AT);
    return memcmp(head.sum, sum.bytes, DIGEST_BYTES) == 0 ? sizeof(head) + head.bytes : 0;
}

/* Is it about this blob and layer, and does it count? */
static bool is_ours(const Checkpoint *c, unsigned slot, const CheckpointMessage *m) {
    return m->digest.len == DIGEST_BYTES &&
           memcmp(m->digest.data, c->o.digest.bytes, DIGEST_BYTES) == 0 && m->size == c->o.size &&
           m->layer == c->o.layer && m->boot.len == RESUME_BOOT_BYTES &&
           (slot == DURABLE || memcmp(m->boot.data, c->o.boot, RESUME_BOOT_BYTES) == 0);
}

static CheckpointMessage *load_slot(const Checkpoint *c, unsigned slot) {
    _cleanup_free_ uint8_t *data = malloc(CHECKPOINT_SLOT_BYTES);
    CheckpointMessage *m = NULL;
    size_t n = data ? read_slot(c->fd, slot, data) : 0;

    if (n > 0)
        m = modelcached__checkpoint__tar_checkpoint__unpack(NULL, n - sizeof(SlotHead),
                                                            data + sizeof(SlotHead));
    return m && is_ours(c, slot, m) ? m : checkpoint_message_free(m);
}

static int best_first(const void *a, const void *b) {
    const CheckpointMessage *x = *(CheckpointMessage *const *)a;
    const CheckpointMessage *y = *(CheckpointMessage *const *)b;

    if (!x || !y)
        return !x - !y;
    return (x->sequence < y->sequence) - (x->sequence > y->sequence);
}

void checkpoint_load(Checkpoint *c, CheckpointMessage *ret[static CHECKPOINT_SLOTS]) {
    c->fd = openat(c->o.dir_fd, c->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    c->there = c->fd >= 0;
    for (unsigned i = 0; i < CHECKPOINT_SLOTS; i++) {
        ret[i] = c->fd < 0 ? NULL : load_slot(c, i);
        if (ret[i] && ret[i]->sequence >= c->sequence && i != DURABLE)
            c->newest = i; /* the next one goes to the other */
        if (ret[i])
            c->sequence = MAX(c->sequence, ret[i]->sequence);
    }
    qsort(ret, CHECKPOINT_SLOTS, sizeof(*ret), best_first);
}

static int failed(int r, Err *err) {
    return err_errnum(err, r, "cannot note how far a layer is unpacked in the store");
}

static int open_file(Checkpoint *c) {
    if (c->there)
        return 0;
    (void)safe_close(c->fd); /* of one that was removed */
    c->fd = openat(c->o.dir_fd, c->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    c->there = c->fd >= 0;
    return c->there ? 0 : -errno;
}

static int write_slot(int fd, unsigned slot, const uint8_t *data, size_t n) {
    for (size_t at = 0; at < n;) {
        ssize_t k = pwrite(fd, data + at, n - at, slot_at(slot) + (off_t)at);

        if (k < 0 && errno != EINTR)
            return -errno;
        at += k < 0 ? 0 : (size_t)k;
    }
    return 0;
}

/* What the checkpoint is of. */
static void sign(Checkpoint *c, CheckpointMessage *m) {
    m->digest = (ProtobufCBinaryData){ DIGEST_BYTES, c->o.digest.bytes };
    m->boot = (ProtobufCBinaryData){ RESUME_BOOT_BYTES, (uint8_t *)(uintptr_t)c->o.boot };
    m->size = c->o.size;
    m->layer = c->o.layer;
    m->sequence = ++c->sequence;
}

int checkpoint_save(Checkpoint *c, CheckpointMessage *m, Err *err) {
    unsigned slot = c->newest == 1 ? 2 : 1; /* written by this thread alone */
    _cleanup_free_ uint8_t *data = NULL;
    SlotHead head = { .magic = MAGIC };
    Digest sum;
    size_t n;
    int r = open_file(c);

    if (r < 0)
        return failed(r, err);
    sign(c, m);
    n = modelcached__checkpoint__tar_checkpoint__get_packed_size(m);
    if (n > CHECKPOINT_SLOT_BYTES - sizeof(head))
        return failed(-E2BIG, err);
    data = malloc(sizeof(head) + n);
    if (!data)
        return failed(-ENOMEM, err);
    (void)modelcached__checkpoint__tar_checkpoint__pack(m, data + sizeof(head));
    head.bytes = (uint32_t)n;
    memcpy(data, &head, sizeof(head));
    digest_of(&sum, data + SUMMED_AT, sizeof(head) + n - SUMMED_AT);
    memcpy(data + offsetof(SlotHead, sum), sum.bytes, DIGEST_BYTES);
    r = write_slot(c->fd, slot, data, sizeof(head) + n);
    if (r < 0)
        return failed(r, err);
    (void)pthread_mutex_lock(&c->mutex);
    c->newest = slot;
    c->unsettled = true;
    (void)pthread_mutex_unlock(&c->mutex);
    return 0;
}

/* Meanwhile the slot may be written anew: then it is not whole, and the next time does.  What was
 * loaded is not written once more: the store counts as progress what is none. */
int checkpoint_settle(Checkpoint *c, Err *err) {
    _cleanup_free_ uint8_t *data = malloc(CHECKPOINT_SLOT_BYTES);
    _cleanup_close_ int fd = -EBADF; /* of this file, whatever becomes of it meanwhile */
    unsigned slot;
    bool unsettled;
    size_t n;
    int r;

    (void)pthread_mutex_lock(&c->mutex);
    unsettled = c->unsettled;
    c->unsettled = false;
    slot = c->newest;
    if (slot != DURABLE)
        fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
    (void)pthread_mutex_unlock(&c->mutex);
    if (slot != DURABLE && !unsettled)
        return 0;
    n = data && fd >= 0 ? read_slot(fd, slot, data) : 0;
    if (n == 0)
        return failed(-ENOENT, err);
    if (syncfs(fd) < 0)
        return failed(-errno, err);
    r = write_slot(fd, DURABLE, data, n);
    if (r >= 0 && fdatasync(fd) < 0)
        r = -errno;
    return r < 0 ? failed(r, err) : 0;
}

bool checkpoint_exists(const Checkpoint *c) {
    return c->there;
}

void checkpoint_remove(Checkpoint *c) {
    (void)unlinkat(c->o.dir_fd, c->name, 0); /* the pull's folder is removed anyway */
    c->there = false;
    (void)pthread_mutex_lock(&c->mutex);
    c->newest = DURABLE;
    (void)pthread_mutex_unlock(&c->mutex);
}
