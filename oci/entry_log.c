/* SPDX-License-Identifier: Apache-2.0 */
/* entry_log: the entries of a tar layer, kept as finished messages in a file until the layer is
 * proved. */
#include "oci/entry_log.h"

#include "base/fs.h"
#include "oci/channel.h"

#include <fcntl.h>

/* One message holds at most so many entries, and names of so many bytes. */
#define BATCH_ENTRIES 1000
#define BATCH_BYTES   KiB(256)
#define MESSAGE_MAX   MiB(1) /* so all of it fits */

#define ENTRY_LOG_NAME_MAX 64

typedef struct LoggedEntry {
    Modelcached__Worker__Entry message;
    Digest digest;
} LoggedEntry;

struct EntryLog {
    unsigned layer;
    int dir_fd; /* borrowed */
    char file[ENTRY_LOG_NAME_MAX];
    int fd;
    uint64_t bytes; /* in the file … */
    Hasher *hasher; /* … which are hashed */
    LoggedEntry entries[BATCH_ENTRIES];
    Modelcached__Worker__Entry *pointers[BATCH_ENTRIES];
    size_t n, names_bytes;
};

typedef Modelcached__Worker__FromWorker FromWorker;

static void make(EntryLog **ret, int dir_fd, const char *name, unsigned layer) {
    EntryLog *l = xnew(EntryLog);

    (void)snprintf(l->file, sizeof(l->file), "%s-entries", name);
    l->dir_fd = dir_fd;
    l->layer = layer;
    l->fd = -EBADF;
    l->hasher = hasher_new();
    *ret = l;
}

void entry_log_remove(EntryLog *l) {
    (void)unlinkat(l->dir_fd, l->file, 0); /* the pull's folder is removed anyway */
}

int entry_log_new(EntryLog **ret, int dir_fd, const char *name, unsigned layer, Err *err) {
    _cleanup_(entry_log_freep) EntryLog *l = NULL;

    make(&l, dir_fd, name, layer);
    entry_log_remove(l); /* of an earlier try */
    l->fd = openat(dir_fd, l->file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (l->fd < 0 && (errno == ENOSPC || errno == EDQUOT))
        return err_set(err, -ENOSPC, "no space left in the store for the list of a tar's files: %s",
                       fs_space_advice(dir_fd));
    if (l->fd < 0)
        return err_errno(err, "cannot make the list of entries of layer %u in the store", layer);
    *ret = TAKE_PTR(l);
    return 0;
}

static void clear(EntryLog *l) {
    for (size_t i = 0; i < l->n; i++) {
        free(l->entries[i].message.path);
        free(l->entries[i].message.target);
        free(l->entries[i].message.ingest);
    }
    l->n = 0;
    l->names_bytes = 0;
}

EntryLog *entry_log_free(EntryLog *l) {
    if (!l)
        return NULL;
    clear(l);
    (void)safe_close(l->fd);
    (void)hasher_free(l->hasher);
    free(l);
    return NULL;
}

static int flush(EntryLog *l, Err *err) {
    Modelcached__Worker__Entries entries = MODELCACHED__WORKER__ENTRIES__INIT;
    FromWorker message = MODELCACHED__WORKER__FROM_WORKER__INIT;
    _cleanup_free_ uint8_t *frame = NULL;
    size_t n;
    int r;

    if (l->n == 0)
        return 0;
    entries.layer = l->layer;
    entries.entries = l->pointers;
    entries.n_entries = l->n;
    message.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_ENTRIES;
    message.entries = &entries;
    frame = channel_frame(&message, &n);
    r = fs_write_all(l->fd, frame, n, err);
    if (r < 0)
        return err_prefix(err, r, "the list of entries of layer %u in the store", l->layer);
    hasher_update(l->hasher, frame, n);
    l->bytes += n;
    clear(l);
    return 0;
}

static const Modelcached__Worker__EntryType wire_types[ENTRY_TYPE_COUNT] = {
    [ENTRY_TYPE_FILE] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_FILE,
    [ENTRY_TYPE_DIRECTORY] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_DIRECTORY,
    [ENTRY_TYPE_SYMLINK] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_SYMLINK,
    [ENTRY_TYPE_HARDLINK] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_HARDLINK,
    [ENTRY_TYPE_WHITEOUT] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_WHITEOUT,
    [ENTRY_TYPE_OPAQUE] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_OPAQUE,
};

int entry_log_add(EntryLog *l, const LayerEntry *entry, Err *err) {
    LoggedEntry *e = &l->entries[l->n];
    Modelcached__Worker__Entry *m = &e->message;

    l->pointers[l->n++] = m;
    modelcached__worker__entry__init(m);
    m->type = wire_types[entry->type];
    m->path = xstrdup(entry->path);
    m->target = xstrdup(entry->target ? entry->target : "");
    m->ingest = xstrdup(entry->ingest ? entry->ingest : "");
    m->size = entry->size;
    m->executable = entry->executable;
    if (entry->type == ENTRY_TYPE_FILE) {
        e->digest = entry->digest;
        m->digest = (ProtobufCBinaryData){ .len = DIGEST_BYTES, .data = e->digest.bytes };
    }
    l->names_bytes += strlen(m->path) + strlen(m->target);
    return l->n == BATCH_ENTRIES || l->names_bytes >= BATCH_BYTES ? flush(l, err) : 0;
}

int entry_log_mark(EntryLog *l, EntryLogMark *ret, Err *err) {
    int r = flush(l, err);

    if (r < 0)
        return r;
    ret->bytes = l->bytes;
    hasher_peek(l->hasher, &ret->digest);
    return 0;
}

int entry_log_take(EntryLog *l) {
    return TAKE_FD(l->fd);
}

/* --- what another worker has written --- */

static int foreign(Err *err) {
    return err_set(err, -EBADMSG, "the list of entries in the store is not what was noted of it");
}

static int show_entry(const EntryLogResume *from, const Modelcached__Worker__Entry *m, Err *err) {
    LayerEntry e = { .size = m->size, .executable = m->executable, .path = m->path };

    while (e.type < ENTRY_TYPE_COUNT && wire_types[e.type] != m->type)
        e.type++;
    if (e.type == ENTRY_TYPE_COUNT ||
        (e.type == ENTRY_TYPE_FILE &&
         digest_from_bytes(&e.digest, m->digest.data, m->digest.len) < 0))
        return foreign(err);
    e.target = *m->target ? m->target : NULL;
    e.ingest = *m->ingest ? m->ingest : NULL;
    return from->visit(from->arg, &e, err);
}

static int show_message(const EntryLogResume *from, const uint8_t *data, size_t n, Err *err) {
    FromWorker *m = modelcached__worker__from_worker__unpack(NULL, n, data);
    int r = 0;

    if (!m || m->message_case != MODELCACHED__WORKER__FROM_WORKER__MESSAGE_ENTRIES ||
        m->entries->layer != from->layer)
        r = foreign(err);
    for (size_t i = 0; r >= 0 && i < m->entries->n_entries; i++)
        r = show_entry(from, m->entries->entries[i], err);
    modelcached__worker__from_worker__free_unpacked(m, NULL);
    return r;
}

/* The next message of the file, in `data`: its length, with the one before it. */
static int read_message(EntryLog *l, const EntryLogMark *mark, uint8_t *data, size_t *ret_n,
                        Err *err) {
    const size_t head = CHANNEL_LENGTH_BYTES;
    uint64_t left = mark->bytes - l->bytes;
    size_t n;

    if (left < head || pread(l->fd, data, head, (off_t)l->bytes) != (ssize_t)head)
        return foreign(err);
    n = channel_length(data);
    if (n > MESSAGE_MAX - head || n > left - head ||
        pread(l->fd, data + head, n, (off_t)(l->bytes + head)) != (ssize_t)n)
        return foreign(err);
    *ret_n = head + n;
    return 0;
}

/* Nothing is shown before all of it is proved. */
static int read_list(EntryLog *l, const EntryLogResume *from, bool show, Err *err) {
    _cleanup_free_ uint8_t *data = xnew_n(uint8_t, MESSAGE_MAX);
    int r = 0;

    l->bytes = 0;
    while (r >= 0 && l->bytes < from->mark.bytes) {
        size_t n = 0;

        r = read_message(l, &from->mark, data, &n, err);
        if (r >= 0 && show)
            r = show_message(from, data + CHANNEL_LENGTH_BYTES, n - CHANNEL_LENGTH_BYTES, err);
        else if (r >= 0)
            hasher_update(l->hasher, data, n);
        l->bytes += n;
    }
    return r;
}

int entry_log_reopen(EntryLog **ret, int dir_fd, const EntryLogResume *from, Err *err) {
    _cleanup_(entry_log_freep) EntryLog *l = NULL;
    Digest got;
    int r;

    make(&l, dir_fd, from->name, from->layer);
    l->fd = openat(dir_fd, l->file, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (l->fd < 0)
        return err_errno(err, "cannot open the list of entries of layer %u in the store",
                         from->layer);
    r = read_list(l, from, false, err);
    if (r < 0)
        return r;
    hasher_peek(l->hasher, &got);
    if (!digest_equal(&got, &from->mark.digest))
        return foreign(err);
    r = read_list(l, from, true, err);
    if (r < 0)
        return r;
    if (ftruncate(l->fd, (off_t)l->bytes) < 0 || lseek(l->fd, (off_t)l->bytes, SEEK_SET) < 0)
        return err_errno(err, "cannot cut the list of entries of layer %u", from->layer);
    *ret = TAKE_PTR(l);
    return 0;
}
