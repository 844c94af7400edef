/* SPDX-License-Identifier: Apache-2.0 */
/* entry_log: the entries of a tar layer, kept as finished messages in a nameless file until the
 * layer is proved. */
#include "oci/entry_log.h"

#include "base/fs.h"
#include "oci/channel.h"

#include <fcntl.h>

/* One message holds at most so many entries, and names of so many bytes. */
#define BATCH_ENTRIES 1000
#define BATCH_BYTES   KiB(256)

typedef struct LoggedEntry {
    Modelcached__Worker__Entry message;
    Digest digest;
} LoggedEntry;

struct EntryLog {
    unsigned layer;
    int fd;
    uint64_t bytes; /* in the file */
    LoggedEntry entries[BATCH_ENTRIES];
    Modelcached__Worker__Entry *pointers[BATCH_ENTRIES];
    size_t n, names_bytes;
};

int entry_log_new(EntryLog **ret, int dir_fd, unsigned layer, Err *err) {
    _cleanup_(entry_log_freep) EntryLog *l = xnew(EntryLog);
    char name[32];

    l->layer = layer;
    (void)snprintf(name, sizeof(name), "%u-entries", layer);
    l->fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (l->fd < 0)
        return err_errno(err, "cannot make the list of entries of layer %u in the store", layer);
    if (unlinkat(dir_fd, name, 0) < 0)
        return err_errno(err, "cannot unlink the list of entries of layer %u", layer);
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
    free(l);
    return NULL;
}

static int flush(EntryLog *l, Err *err) {
    Modelcached__Worker__Entries entries = MODELCACHED__WORKER__ENTRIES__INIT;
    Modelcached__Worker__FromWorker message = MODELCACHED__WORKER__FROM_WORKER__INIT;
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
    l->bytes += n;
    clear(l);
    return 0;
}

static Modelcached__Worker__EntryType wire_type(EntryType type) {
    static const Modelcached__Worker__EntryType types[ENTRY_TYPE_COUNT] = {
        [ENTRY_TYPE_FILE] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_FILE,
        [ENTRY_TYPE_DIRECTORY] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_DIRECTORY,
        [ENTRY_TYPE_SYMLINK] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_SYMLINK,
        [ENTRY_TYPE_HARDLINK] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_HARDLINK,
        [ENTRY_TYPE_WHITEOUT] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_WHITEOUT,
        [ENTRY_TYPE_OPAQUE] = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_OPAQUE,
    };

    return types[type];
}

int entry_log_add(EntryLog *l, const LayerEntry *entry, Err *err) {
    LoggedEntry *e = &l->entries[l->n];
    Modelcached__Worker__Entry *m = &e->message;

    l->pointers[l->n++] = m;
    modelcached__worker__entry__init(m);
    m->type = wire_type(entry->type);
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

int entry_log_finish(EntryLog *l, int *ret_fd, uint64_t *ret_bytes, Err *err) {
    int r = flush(l, err);

    if (r < 0)
        return r;
    *ret_bytes = l->bytes;
    *ret_fd = TAKE_FD(l->fd);
    return 0;
}
