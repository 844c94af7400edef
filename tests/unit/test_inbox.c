/* SPDX-License-Identifier: Apache-2.0 */
/* test_inbox: the order of a worker's messages, and everything that one may not say. */
#include "agent/inbox.h"
#include "base/limits.h"
#include "proto/worker.pb-c.h"
#include "tests/unit/test.h"

typedef Modelcached__Worker__FromWorker Message;

/* What was called. */
typedef struct Seen {
    char log[512];
    Manifest *manifest;
    uint64_t bytes, resumed, ahead;
} Seen;

static void note(Seen *s, const char *word) {
    size_t n = strlen(s->log);
    (void)snprintf(s->log + n, sizeof(s->log) - n, "%s ", word);
}

static void on_hello(void *arg, FeatureList *features) {
    Seen *s = arg;
    note(s, features->n > 0 ? features->items[0].detail : "hello");
    feature_list_done(features);
}

static void on_resolved(void *arg, Manifest *manifest, IndexChain *index) {
    Seen *s = arg;
    note(s, index ? "resolved-by-index" : "resolved");
    s->manifest = manifest;
    (void)index_chain_free(index);
}

static void on_progress(void *arg, size_t layer, uint64_t bytes, uint64_t resumed, uint64_t ahead) {
    Seen *s = arg;
    (void)layer;
    s->bytes = bytes;
    s->resumed = resumed;
    s->ahead = ahead;
}

static void on_waiting(void *arg, const char *text) {
    if (*text)
        note(arg, text);
}

static void on_layer(void *arg, size_t layer, LayerEntry *entries, size_t n) {
    char word[64];
    (void)snprintf(word, sizeof(word), "layer%zu:%zu", layer, n);
    note(arg, word);
    layer_entries_free(entries, n);
}

static void on_done(void *arg) {
    note(arg, "done");
}

static Inbox *make(Seen *s, bool probe) {
    InboxHandlers handlers = {
        on_hello, on_resolved, on_progress, on_waiting, on_layer, on_done, s
    };

    return inbox_new(&handlers, probe);
}

static int feed(Inbox *in, Message *m, Err *err) {
    size_t n = modelcached__worker__from_worker__get_packed_size(m);
    uint8_t *bytes = xnew_n(uint8_t, n + 4);
    int r = 0;

    for (unsigned i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(n >> 8 * i);
    (void)modelcached__worker__from_worker__pack(m, bytes + 4);
    for (size_t i = 0; i < n + 4 && r >= 0; i++) /* byte by byte: the worst that a socket can do */
        r = inbox_feed(in, bytes + i, 1, err);
    free(bytes);
    return r;
}

#define FEED(in, NAME, field, value, err)                                    \
    ({                                                                       \
        Message _m_ = MODELCACHED__WORKER__FROM_WORKER__INIT;                \
        _m_.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_##NAME; \
        _m_.field = (value);                                                 \
        feed((in), &_m_, (err));                                             \
    })

static int hello(Inbox *in, Err *err) {
    Modelcached__Worker__Hello m = MODELCACHED__WORKER__HELLO__INIT;
    return FEED(in, HELLO, hello, &m, err);
}

static int done(Inbox *in, Err *err) {
    Modelcached__Worker__Done m = MODELCACHED__WORKER__DONE__INIT;
    return FEED(in, DONE, done, &m, err);
}

static int layer_done(Inbox *in, uint32_t layer, Err *err) {
    Modelcached__Worker__LayerDone m = MODELCACHED__WORKER__LAYER_DONE__INIT;
    m.layer = layer;
    return FEED(in, LAYER_DONE, layer_done, &m, err);
}

static uint8_t digest_bytes[DIGEST_BYTES + 1] = { 1, 2, 3 };

typedef struct Answer {
    Modelcached__Worker__Resolved m;
    Modelcached__Worker__LayerInfo layer[2], *list[2];
} Answer;

/* Two good layers: a raw one and a tar. */
static void answer_init(Answer *a) {
    modelcached__worker__resolved__init(&a->m);
    a->m.digest = (ProtobufCBinaryData){ DIGEST_BYTES, digest_bytes };
    a->m.media_type = (char *)"application/json";
    a->m.family = (char *)"oras";
    a->m.manifest = (ProtobufCBinaryData){ 2, (uint8_t *)"{}" };
    for (unsigned i = 0; i < 2; i++) {
        modelcached__worker__layer_info__init(&a->layer[i]);
        a->layer[i].digest = a->m.digest;
        a->layer[i].size = 100;
        a->list[i] = &a->layer[i];
    }
    a->layer[0].path = (char *)"model.bin";
    a->layer[1].kind = MODELCACHED__WORKER__LAYER_KIND__LAYER_TAR;
    a->m.layers = a->list;
    a->m.n_layers = 2;
}

static int resolved(Inbox *in, Err *err) {
    Answer a;
    answer_init(&a);
    return FEED(in, RESOLVED, resolved, &a.m, err);
}

/* Up to the state in which layers come; both layers are asked for. */
static Inbox *fetching_with(Seen *s, uint64_t room) {
    static const uint32_t fetch[] = { 0, 1 };
    Inbox *in = make(s, false);
    Err err = { "" };

    if (hello(in, &err) < 0 || resolved(in, &err) < 0)
        test_fail(__FILE__, __LINE__, "%s", err.text);
    inbox_plan(in, fetch, 2, false);
    inbox_raise_room(in, room);
    return in;
}

static Inbox *fetching(Seen *s) {
    return fetching_with(s, LIMIT_BLOB_BYTES);
}

static Modelcached__Worker__Entry good_entry(void) {
    Modelcached__Worker__Entry e = MODELCACHED__WORKER__ENTRY__INIT;

    e.path = (char *)"model.bin";
    e.digest = (ProtobufCBinaryData){ DIGEST_BYTES, digest_bytes };
    e.size = 5;
    e.ingest = (char *)"f0";
    return e;
}

static int entry(Inbox *in, uint32_t layer, Modelcached__Worker__Entry *e, Err *err) {
    Modelcached__Worker__Entries m = MODELCACHED__WORKER__ENTRIES__INIT;

    m.layer = layer;
    m.entries = &e;
    m.n_entries = 1;
    return FEED(in, ENTRIES, entries, &m, err);
}

TEST(inbox_a_whole_pull) {
    Seen s = { .log = "" };
    _cleanup_(inbox_freep) Inbox *in = fetching(&s);
    Modelcached__Worker__Entry e = good_entry();
    Modelcached__Worker__Progress p = MODELCACHED__WORKER__PROGRESS__INIT;
    Modelcached__Worker__LayerProgress l = MODELCACHED__WORKER__LAYER_PROGRESS__INIT, *ls = &l;
    Err err = { "" };

    l.bytes = 5000; /* more than the layer has */
    p.layers = &ls;
    p.n_layers = 1;
    p.waiting = (char *)"busy\nregistry";
    ASSERT_OK(FEED(in, PROGRESS, progress, &p, &err));
    ASSERT_EQ(s.bytes, 100);
    l.bytes = 60;
    l.resumed = 61;
    l.ahead = 41;
    p.waiting = (char *)"";
    ASSERT_OK(FEED(in, PROGRESS, progress, &p, &err));
    ASSERT_EQ(s.bytes, 60);
    ASSERT_EQ(s.resumed, 60);
    ASSERT_EQ(s.ahead, 40);
    ASSERT_OK(entry(in, 1, &e, &err));
    ASSERT_OK(entry(in, 0, &e, &err));
    ASSERT_OK(layer_done(in, 1, &err));
    ASSERT_EQ(inbox_outcome(in, &err), 0);
    ASSERT_OK(layer_done(in, 0, &err));
    ASSERT_OK(done(in, &err));
    ASSERT_EQ(inbox_outcome(in, &err), 1);
    ASSERT_STREQ(s.log, "hello resolved busy?registry layer1:1 layer0:1 done ");
    ASSERT_EQ(s.manifest->n_layers, 2);
    ASSERT_STREQ(s.manifest->layers[0].path, "model.bin");
    ASSERT_TRUE(!s.manifest->layers[1].path);
    ASSERT_ERR(done(in, &err), -EPROTO);
    (void)manifest_free(s.manifest);
}

TEST(inbox_probe_ends_with_hello) {
    Seen s = { .log = "" };
    _cleanup_(inbox_freep) Inbox *in = make(&s, true);
    Err err = { "" };

    ASSERT_OK(hello(in, &err));
    ASSERT_EQ(inbox_outcome(in, &err), 1);
    ASSERT_ERR(resolved(in, &err), -EPROTO);
}

TEST(inbox_order) {
    Seen s = { .log = "" };
    _cleanup_(inbox_freep) Inbox *a = make(&s, false), *b = make(&s, false), *c = make(&s, false),
                                 *d = fetching(&s);
    Err err = { "" };

    ASSERT_ERR(resolved(a, &err), -EPROTO);
    ASSERT_STREQ(err.text, "message 2 while hello");
    ASSERT_OK(hello(b, &err));
    ASSERT_ERR(hello(b, &err), -EPROTO);
    ASSERT_OK(hello(c, &err));
    ASSERT_ERR(done(c, &err), -EPROTO);
    ASSERT_OK(layer_done(d, 0, &err));
    ASSERT_ERR(layer_done(d, 0, &err), -EPROTO);
    ASSERT_STREQ(err.text, "layer 0 was done already");
    (void)manifest_free(s.manifest);
}

/* After an error nothing more is taken, so each mistake has an inbox of its own. */
TEST(inbox_layers_that_cannot_be) {
    Seen s = { .log = "" }, t = { .log = "" };
    _cleanup_(inbox_freep) Inbox *a = fetching(&s), *b = fetching(&t);
    Err err = { "" };

    ASSERT_ERR(done(a, &err), -EPROTO);
    ASSERT_STREQ(err.text, "it is done, but 2 layers are missing");
    ASSERT_ERR(layer_done(b, 2, &err), -EPROTO);
    ASSERT_STREQ(err.text, "layer 2 was not asked for");
    (void)manifest_free(s.manifest);
    (void)manifest_free(t.manifest);
}

TEST(inbox_what_was_not_asked_for) {
    Seen s = { .log = "" };
    _cleanup_(inbox_freep) Inbox *in = make(&s, false);
    Modelcached__Worker__Entry e = good_entry();
    static const uint32_t fetch[] = { 1 };
    Err err = { "" };

    ASSERT_OK(hello(in, &err));
    ASSERT_OK(resolved(in, &err));
    inbox_plan(in, fetch, 1, false);
    ASSERT_ERR(entry(in, 0, &e, &err), -EPROTO);
    ASSERT_STREQ(err.text, "layer 0 was not asked for");
    (void)manifest_free(s.manifest);
}

TEST(inbox_failed) {
    static const struct {
        int error, outcome;
        const char *text, *sentence;
    } cases[] = {
        { ENOENT, -ENOENT, "no such tag", "no such tag" },
        { EXDEV, -EIO, "odd", "odd" },
        { EACCES, -EACCES, "a\033[1m\xff", "a?[1m?" },
        { EIO, -EIO, "", "the pull worker failed without saying why" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Seen s = { .log = "" };
        _cleanup_(inbox_freep) Inbox *in = make(&s, false);
        Modelcached__Worker__Failed m = MODELCACHED__WORKER__FAILED__INIT;
        Err err = { "" };
        m.error = cases[i].error;
        m.text = (char *)cases[i].text;
        ASSERT_OK(FEED(in, FAILED, failed, &m, &err));
        ASSERT_ERR(inbox_outcome(in, &err), cases[i].outcome);
        ASSERT_STREQ(err.text, cases[i].sentence);
        ASSERT_TRUE(!inbox_was_answered(in));
    }
}

TEST(inbox_failed_tells_what_the_registry_does_not_know) {
    Seen s = { .log = "" };
    _cleanup_(inbox_freep) Inbox *in = make(&s, false);
    Modelcached__Worker__Failed m = MODELCACHED__WORKER__FAILED__INIT;
    Err err = { "" };

    m.error = ENOENT;
    m.answered = true;
    ASSERT_OK(FEED(in, FAILED, failed, &m, &err));
    ASSERT_TRUE(inbox_was_answered(in));
}

TEST(inbox_failed_needs_an_errno) {
    Seen s = { .log = "" };
    _cleanup_(inbox_freep) Inbox *in = make(&s, false);
    Modelcached__Worker__Failed m = MODELCACHED__WORKER__FAILED__INIT;
    Err err = { "" };

    ASSERT_ERR(FEED(in, FAILED, failed, &m, &err), -EPROTO);
}

/* One thing that is wrong with an answer. */
typedef void (*Spoil)(Answer *a);
static void short_digest(Answer *a) {
    a->m.digest.len = 31;
}
static void no_bytes(Answer *a) {
    a->m.manifest.len = 0;
}
static void short_index(Answer *a) {
    a->m.index_digest = (ProtobufCBinaryData){ 5, digest_bytes };
}
static void no_media_type(Answer *a) {
    a->m.media_type = (char *)"";
}
static void family_with_escape(Answer *a) {
    a->m.family = (char *)"or\033as";
}
static void platform_not_utf8(Answer *a) {
    a->m.platform = (char *)"linux/\xc0\x80";
}
static void layer_digest(Answer *a) {
    a->layer[1].digest.len = 33;
}
static void layer_kind(Answer *a) {
    a->layer[1].kind = 2;
}
static void layer_too_big(Answer *a) {
    a->layer[0].size = LIMIT_BLOB_BYTES + 1;
}
static void layers_too_big(Answer *a) {
    a->layer[0].size = a->layer[1].size = LIMIT_BLOB_BYTES / 2 + 1;
}
static void raw_without_path(Answer *a) {
    a->layer[0].path = (char *)"";
}
static void path_up(Answer *a) {
    a->layer[0].path = (char *)"../x";
}
static void prefix_absolute(Answer *a) {
    a->layer[1].path = (char *)"/etc";
}

TEST(inbox_bad_answers) {
    static const Spoil spoils[] = { short_digest,   no_bytes,           short_index,
                                    no_media_type,  family_with_escape, platform_not_utf8,
                                    layer_digest,   layer_kind,         layer_too_big,
                                    layers_too_big, raw_without_path,   path_up,
                                    prefix_absolute };

    for (size_t i = 0; i < ELEMENTSOF(spoils); i++) {
        Seen s = { .log = "" };
        _cleanup_(inbox_freep) Inbox *in = make(&s, false);
        Err err = { "" };
        Answer a;
        answer_init(&a);
        spoils[i](&a);
        ASSERT_OK(hello(in, &err));
        if (FEED(in, RESOLVED, resolved, &a.m, &err) != -EPROTO || !err.text[0] || s.manifest)
            test_fail(__FILE__, __LINE__, "case %zu was taken: %s", i, err.text);
    }
}

TEST(inbox_too_many_layers) {
    Seen s = { .log = "" };
    _cleanup_(inbox_freep) Inbox *in = make(&s, false);
    _cleanup_free_ Modelcached__Worker__LayerInfo **list =
        xnew_n(Modelcached__Worker__LayerInfo *, LIMIT_LAYERS + 1);
    Err err = { "" };
    Answer a;

    answer_init(&a);
    for (size_t i = 0; i <= LIMIT_LAYERS; i++)
        list[i] = &a.layer[0];
    a.m.layers = list;
    a.m.n_layers = LIMIT_LAYERS + 1;
    ASSERT_OK(hello(in, &err));
    ASSERT_ERR(FEED(in, RESOLVED, resolved, &a.m, &err), -EPROTO);
    ASSERT_STREQ(err.text, "8193 layers");
}

TEST(inbox_bad_entries) {
    static const struct {
        const char *path, *target, *ingest;
        int type;
        size_t digest;
        uint64_t size;
    } cases[] = {
        { "../x", "", "f", 0, 32, 1 }, { "/x", "", "f", 0, 32, 1 },
        { "", "", "f", 0, 32, 1 },     { "a", "", "../f", 0, 32, 1 },
        { "a", "", "f/g", 0, 32, 1 },  { "a", "", "f", 0, 31, 1 },
        { "a", "t", "f", 0, 32, 1 },   { "a", "", "", 2, 0, 0 },
        { "a", "../t", "", 3, 0, 0 },  { "a", "", "f", 1, 0, 0 },
        { "a", "", "", 6, 0, 0 },      { "a", "", "", -1, 0, 0 },
        { "\xff", "", "f", 0, 32, 1 }, { "a", "\xff", "", 2, 0, 0 },
        { "", "", "", 4, 0, 0 },       { "a", "", "f", 0, 32, LIMIT_BLOB_BYTES + 1 },
        { "a//b", "", "f", 0, 32, 1 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Seen s = { .log = "" };
        _cleanup_(inbox_freep) Inbox *in = fetching(&s);
        Modelcached__Worker__Entry e = MODELCACHED__WORKER__ENTRY__INIT;
        Err err = { "" };
        e.path = (char *)cases[i].path;
        e.target = (char *)cases[i].target;
        e.ingest = (char *)cases[i].ingest;
        e.type = (Modelcached__Worker__EntryType)cases[i].type;
        e.digest = (ProtobufCBinaryData){ cases[i].digest, digest_bytes };
        e.size = cases[i].size;
        if (entry(in, 0, &e, &err) != -EPROTO)
            test_fail(__FILE__, __LINE__, "case %zu was taken", i);
        (void)manifest_free(s.manifest);
    }
}

TEST(inbox_good_entries_of_every_type) {
    Seen s = { .log = "" };
    _cleanup_(inbox_freep) Inbox *in = fetching(&s);
    static const char *const targets[] = { "", "", "../else", "other", "", "" };
    Err err = { "" };

    for (int type = 1; type < 6; type++) {
        Modelcached__Worker__Entry e = MODELCACHED__WORKER__ENTRY__INIT;
        e.type = (Modelcached__Worker__EntryType)type;
        e.path = (char *)(type == 5 ? "" : "a/b");
        e.target = (char *)targets[type];
        ASSERT_OK(entry(in, 1, &e, &err));
    }
    ASSERT_OK(layer_done(in, 1, &err));
    ASSERT_STRSTR(s.log, "layer1:5");
    (void)manifest_free(s.manifest);
}

TEST(inbox_refuses_long_and_broken_messages) {
    Seen s = { .log = "" };
    _cleanup_(inbox_freep) Inbox *a = make(&s, false), *b = make(&s, false), *c = make(&s, false);
    Err err = { "" };

    ASSERT_ERR(inbox_feed(a, (const uint8_t *)"\x01\0\0\x04", 4, &err), -EPROTO);
    ASSERT_ERR(inbox_feed(b, (const uint8_t *)"\x02\0\0\0\xff\xff", 6, &err), -EPROTO);
    ASSERT_ERR(inbox_feed(c, (const uint8_t *)"\0\0\0\0", 4, &err), -EPROTO); /* no message in it */
}

/* Empty entries take 2 bytes on the wire and a hundred in memory. */
TEST(inbox_parsing_does_not_eat_the_memory) {
    const size_t n = MiB(8), head = 4 + 5 + 5;
    Seen s = { .log = "" };
    _cleanup_(inbox_freep) Inbox *in = fetching(&s);
    _cleanup_free_ uint8_t *bytes = xnew_n(uint8_t, head + n);
    Err err = { "" };
    uint8_t *p = bytes;
    size_t inner = n, outer = n + 5;

    for (unsigned i = 0; i < 4; i++)
        *p++ = (uint8_t)((outer + 0) >> 8 * i);
    *p++ = 4 << 3 | 2; /* FromWorker.entries, its length as a varint of 4 bytes */
    for (unsigned i = 0; i < 4; i++, inner >>= 7)
        *p++ = (uint8_t)((inner & 0x7f) | (i < 3 ? 0x80 : 0));
    for (size_t i = 0; i < n; i += 2) {
        *p++ = 2 << 3 | 2; /* Entries.entries, of no bytes */
        *p++ = 0;
    }
    ASSERT_ERR(inbox_feed(in, bytes, 4 + outer, &err), -EPROTO);
    ASSERT_STRSTR(err.text, "bytes that are not a message");
    (void)manifest_free(s.manifest);
}

TEST(inbox_files_must_fit_into_the_room) {
    Seen s = { .log = "" };
    _cleanup_(inbox_freep) Inbox *in = fetching_with(&s, 600);
    Modelcached__Worker__Entry e = good_entry();
    Err err = { "" };

    e.size = 600;
    ASSERT_OK(entry(in, 1, &e, &err));
    e.ingest = (char *)""; /* another entry's file */
    ASSERT_OK(entry(in, 1, &e, &err));
    inbox_raise_room(in, 1000); /* a layer was another pull's to bring */
    inbox_raise_room(in, 800);
    e.ingest = (char *)"f1";
    e.size = 300;
    ASSERT_OK(entry(in, 1, &e, &err));
    e.ingest = (char *)"f2";
    e.size = 101;
    ASSERT_ERR(entry(in, 1, &e, &err), -ENOSPC);
    ASSERT_STRSTR(err.text, "1000 B");
    (void)manifest_free(s.manifest);
}
