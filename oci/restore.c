/* SPDX-License-Identifier: Apache-2.0 */
/* restore: finds and proves what an earlier worker has unpacked of a tar layer; and notes it for a
 * later one. */
#include "oci/restore.h"

#include "base/log.h"
#include "cache/read_back.h"

#include <dirent.h>
#include <fcntl.h>

#define BYTES(p, size) ((ProtobufCBinaryData){ .len = (size), .data = (uint8_t *)(uintptr_t)(p) })

#define WANTED_MAX 10000 /* there are few: equal files that two threads had at the same time */

/* A content that an entry counts on. */
typedef struct Wanted {
    Digest digest;
    bool executable;
} Wanted;

/* One try. */
typedef struct Restore {
    const RestoreOptions *o;
    ReadBack *reader;
    Hasher *hasher;
    UnpackUsed used; /* entries of the list, and bytes of their files */
    uint64_t n_read; /* bytes */
    uint64_t max;    /* of the blob */
    Wanted *wanted;  /* entries without a file, whose content did not come before them */
    size_t n_wanted, cap_wanted;
} Restore;

/* --- notes --- */

static void put_list(CheckpointMessage *m, const EntryLogMark *list) {
    m->list_bytes = list->bytes;
    m->list_digest = BYTES(list->digest.bytes, DIGEST_BYTES);
}

int restore_note(Checkpoint *c, const RestorePlace *place, Err *err) {
    CheckpointMessage m = MODELCACHED__CHECKPOINT__TAR_CHECKPOINT__INIT;
    const UnpackPlace *u = place->unpack;

    m.offset = place->mark.offset;
    m.hash = BYTES(&place->mark.hash, sizeof(place->mark.hash));
    m.skip = place->skip;
    m.codec = u->decoder.codec;
    m.in_frame = u->decoder.in_frame;
    m.decoder = BYTES(u->decoder.data, u->decoder.n);
    m.decoder_build = BYTES(u->decoder.build, sizeof(u->decoder.build));
    m.decoded = u->decoded;
    m.pax = u->pax;
    m.content_bytes = u->used.bytes;
    m.entries = u->used.entries;
    m.files = u->used.files;
    put_list(&m, &place->list);
    m.path = u->entry.path;
    m.file_size = u->entry.size;
    m.executable = u->entry.executable;
    m.written = u->open.written.bytes;
    m.written_digest = BYTES(u->open.written.digest.bytes, DIGEST_BYTES);
    m.pending = BYTES(u->open.pending, u->open.n_pending);
    return checkpoint_save(c, &m, err);
}

int restore_note_complete(Checkpoint *c, const EntryLogMark *list, Err *err) {
    CheckpointMessage m = MODELCACHED__CHECKPOINT__TAR_CHECKPOINT__INIT;

    m.complete = true;
    put_list(&m, list);
    return checkpoint_save(c, &m, err);
}

/* --- what was noted --- */

static bool is_digest(const ProtobufCBinaryData *data) {
    return data->len == DIGEST_BYTES;
}

/* Another pull may have other buffers. */
static bool is_usable(const RestoreOptions *o, const CheckpointMessage *m) {
    if (!is_digest(&m->list_digest))
        return false;
    return m->complete ||
           (m->decoder_build.len == DECODER_BUILD_MAX && m->offset <= m->size &&
            m->offset % o->buffer_bytes == 0 && m->hash.len == sizeof(HasherState) &&
            m->codec <= CODEC_ZSTD && m->files > 0 && *m->path && is_digest(&m->written_digest) &&
            m->written <= m->file_size && m->pending.len < m->file_size - m->written);
}

static void get_place(const CheckpointMessage *m, Restored *ret) {
    UnpackPlace *u = &ret->place;

    ret->mark.offset = m->offset;
    memcpy(&ret->mark.hash, m->hash.data, sizeof(ret->mark.hash));
    ret->skip = m->skip;
    u->decoder = (DecoderState){ .codec = (Codec)m->codec,
                                 .in_frame = m->in_frame,
                                 .data = m->decoder.data,
                                 .n = m->decoder.len };
    memcpy(u->decoder.build, m->decoder_build.data, sizeof(u->decoder.build));
    u->decoded = m->decoded;
    u->blob = m->offset + m->skip;
    u->pax = m->pax;
    u->used = (UnpackUsed){ m->content_bytes, m->entries, m->files };
    u->entry = (LayerEntry){
        .type = ENTRY_TYPE_FILE, .path = m->path, .size = m->file_size, .executable = m->executable
    };
    u->open = (UnpackOpen){ .written.bytes = m->written,
                            .pending = m->pending.data,
                            .n_pending = m->pending.len };
    memcpy(u->open.written.digest.bytes, m->written_digest.data, DIGEST_BYTES);
}

static int on_read(void *arg, uint64_t n) {
    Restore *r = arg;

    r->n_read += n;
    atomic_store(r->o->proved, MIN(r->n_read, r->max));
    return atomic_load(r->o->cancelled) ? -ECANCELED : 0;
}

static int foreign(const LayerEntry *e, Err *err) {
    return err_set(err, -EBADMSG, "the content of \"%.200s\" is not in the store as it was written",
                   e->path);
}

/* An entry without a file counts on another one, which mostly came before. */
static int want(Restore *r, const LayerEntry *e, Err *err) {
    if (seen_test(r->o->seen, &e->digest, e->executable))
        return 0;
    if (r->n_wanted == WANTED_MAX)
        return foreign(e, err);
    ARRAY_GROW(r->wanted, r->n_wanted, r->cap_wanted);
    r->wanted[r->n_wanted++] = (Wanted){ e->digest, e->executable };
    return 0;
}

static int prove_wanted(const Restore *r, Err *err) {
    for (size_t i = 0; i < r->n_wanted; i++)
        if (!seen_test(r->o->seen, &r->wanted[i].digest, r->wanted[i].executable))
            return err_set(err, -EBADMSG, "nothing in the store has the content %s",
                           DIGEST_STR(&r->wanted[i].digest));
    return 0;
}

static int prove_entry(void *arg, const LayerEntry *e, Err *err) {
    Restore *r = arg;
    _cleanup_close_ int fd = -EBADF;
    uint64_t n;
    Digest got;
    int k;

    r->used.entries++;
    if (e->type != ENTRY_TYPE_FILE)
        return 0;
    if (!e->ingest)
        return want(r, e, err);
    fd = read_back_open(r->o->dir_fd, e->ingest, e->size >= UNPACK_FILE_DIRECT);
    if (fd < 0)
        return foreign(e, err);
    k = read_back_hash(r->reader, fd, e->size + 1, r->hasher, &n); /* does it go on? */
    hasher_final(r->hasher, &got);
    if (k == -ECANCELED)
        return k;
    if (k < 0 || n != e->size || !digest_equal(&got, &e->digest))
        return foreign(e, err);
    r->used.bytes += n;
    (void)seen_test_and_add(r->o->seen, &e->digest, e->executable);
    return 0;
}

static int try_one(Restored *ret, Restore *r, CheckpointMessage *m, Err *err) {
    EntryLogResume from = {
        .name = r->o->name, .layer = r->o->layer, .visit = prove_entry, .arg = r
    };
    int k;

    seen_clear(r->o->seen);
    r->used = (UnpackUsed){ 0 };
    r->n_read = r->n_wanted = 0;
    r->max = m->complete ? m->size : m->offset;
    if (!is_usable(r->o, m))
        return err_set(err, -EBADMSG, "it is of a pull with other buffers");
    ret->place = (UnpackPlace){ 0 };
    if (!m->complete)
        get_place(m, ret);
    atomic_store(&r->o->now->there, m->complete ? m->size : unpack_there(&ret->place));
    if (!decoder_state_is_ours(&ret->place.decoder))
        return err_set(err, -EBADMSG, "another build of the decoder was here before");
    from.mark.bytes = m->list_bytes;
    memcpy(from.mark.digest.bytes, m->list_digest.data, DIGEST_BYTES);
    k = entry_log_reopen(&ret->log, r->o->dir_fd, &from, err);
    if (k >= 0)
        k = prove_wanted(r, err);
    if (k < 0) {
        ret->log = entry_log_free(ret->log);
        return k;
    }
    ret->list = from.mark;
    ret->used = r->used;
    ret->complete = m->complete;
    return 1;
}

/* The layer comes as a whole: until each of its files is made anew they would only take space. */
static void remove_files(const RestoreOptions *o) {
    _cleanup_free_ char *prefix = xasprintf("%s-", o->name);
    int fd = openat(o->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;

    if (!folder) {
        safe_close(fd);
        return;
    }
    while ((e = readdir(folder)))
        if (startswith(e->d_name, prefix))
            (void)unlinkat(o->dir_fd, e->d_name, 0);
    (void)closedir(folder);
}

int restore_layer(Restored *ret, const RestoreOptions *o, Err *err) {
    CheckpointMessage *messages[CHECKPOINT_SLOTS];
    Restore restore = { .o = o };
    Err why = { "" };
    int r = 0;

    *ret = (Restored){ 0 };
    checkpoint_load(o->checkpoint, messages);
    if (messages[0]) {
        restore.hasher = hasher_new();
        r = read_back_new(&restore.reader, on_read, &restore, err);
    }
    for (size_t i = 0; i < ELEMENTSOF(messages); i++) {
        if (messages[i] && r == 0) {
            r = try_one(ret, &restore, messages[i], &why);
            if (r > 0)
                ret->message = TAKE_PTR(messages[i]);
            else if (r != -ECANCELED) {
                log_debug("a layer is not gone on with: %s", why.text);
                r = 0;
            }
        }
        messages[i] = checkpoint_message_free(messages[i]);
    }
    if (r == 0) { /* what was proved in vain */
        /* Also those of a checkpoint that counts for nothing. */
        if (checkpoint_exists(o->checkpoint))
            remove_files(o);
        seen_clear(o->seen);
        atomic_store(&o->now->there, 0);
        *ret = (Restored){ 0 };
    }
    free(restore.wanted);
    (void)read_back_free(restore.reader);
    (void)hasher_free(restore.hasher);
    return r == -ECANCELED ? err_set(err, r, "the pull was cancelled") : r;
}

void restored_done(Restored *r) {
    r->log = entry_log_free(r->log);
    r->message = checkpoint_message_free(r->message);
}
