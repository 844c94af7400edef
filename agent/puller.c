/* SPDX-License-Identifier: Apache-2.0 */
/* puller: the queue of pulls: who asks for what, one pull for all that ask for the same, a few at a
 * time. */
#include "agent/puller.h"
#include "agent/copy.h"
#include "base/limits.h"
#include "base/parse.h"

/* One pull and those who wait for it. */
typedef struct Entry {
    Puller *puller;
    char *key;
    Flight *pull;
    EnsureTicket *tickets; /* first of a list */
    bool background;       /* nobody waits, nobody did */
    bool running;
} Entry;

/* A look into the store on behalf of a request; goes on when its ticket is freed. */
typedef struct Lookup {
    Puller *puller;
    EnsureTicket *ticket; /* NULL: freed */
    Reference *reference;
    char *reference_text, *platform, *key;
    CredentialList credentials;
    PullPolicy policy;
    bool background;
    Digest found;
} Lookup;

struct EnsureTicket {
    EnsureDone done;
    void *done_arg;
    Lookup *lookup; /* one of the two, or neither once it is done */
    Entry *entry;
    EnsureTicket *next; /* of the entry */
};

struct Puller {
    FlightContext context;
    Pool *pool; /* of lookups; the context has that of pulls */
    char *worker_program;
    PullOptions *options;
    void (*on_event)(void *arg, const StoreEvent *event);
    void *arg;
    Entry **entries; /* oldest first */
    size_t n_entries, cap_entries;
    size_t n_lookups;
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static uint64_t promised(void *arg) {
    Puller *p = arg;
    uint64_t sum = 0;

    for (size_t i = 0; i < p->n_entries; i++) {
        FlightView v;
        flight_view(p->entries[i]->pull, &v);
        sum += v.bytes_total - v.bytes_done;
    }
    return sum;
}

void puller_new(Puller **ret, const PullerOptions *o) {
    Puller *p = xnew(Puller);

    p->worker_program = xstrdup(o->worker_program);
    p->context = (FlightContext){ sd_event_ref(o->event), o->store, o->bulk,
                                  p->worker_program,      promised, p };
    p->options = pull_options_ref(o->options);
    p->pool = o->pool;
    p->on_event = o->on_event;
    p->arg = o->arg;
    *ret = p;
}

void puller_set_options(Puller *p, PullOptions *options) {
    PullOptions *old = p->options;

    p->options = pull_options_ref(options);
    (void)pull_options_unref(old);
}

Puller *puller_free(Puller *p) {
    if (!p)
        return NULL;
    assert(p->n_entries == 0 && p->n_lookups == 0); /* puller_stop(), then pool_free() */
    (void)pull_options_unref(p->options);
    (void)sd_event_unref(p->context.event);
    free(p->entries);
    free(p->worker_program);
    free(p);
    return NULL;
}

size_t puller_count(const Puller *p) {
    return p->n_entries;
}

const Flight *puller_get(const Puller *p, size_t i) {
    return p->entries[i]->pull;
}

/* Tickets. */

EnsureTicket *puller_ticket_free(EnsureTicket *t) {
    if (!t)
        return NULL;
    if (t->lookup)
        t->lookup->ticket = NULL;
    if (t->entry) {
        EnsureTicket **link = &t->entry->tickets;
        while (*link && *link != t)
            link = &(*link)->next;
        if (*link)
            *link = t->next;
    }
    free(t);
    return NULL;
}

void puller_ticket_text(const EnsureTicket *t, char *buf, size_t n) {
    if (t->entry)
        flight_text(t->entry->pull, buf, n);
    else
        (void)snprintf(buf, n, t->lookup ? "looking in the store" : "done");
}

const Flight *puller_ticket_pull(const EnsureTicket *t) {
    return t->entry ? t->entry->pull : NULL;
}

static void ticket_done(EnsureTicket *t, int r, const Err *err, const Digest *manifest) {
    t->done(t->done_arg, r, err, manifest); /* may free it */
}

/* Entries. */

static void say(Puller *p, const char *type, const Flight *pull, const char *text) {
    FlightView v;
    char digest[DIGEST_TEXT_MAX] = "";
    StoreEvent e = { .type = (char *)type, .text = (char *)text };

    flight_view(pull, &v);
    e.reference = (char *)v.reference;
    if (v.manifest)
        e.digest = (char *)digest_text(digest, &v.manifest->digest);
    if (p->on_event)
        p->on_event(p->arg, &e);
}

static void say_start(Puller *p, const Flight *pull) {
    char text[LIMIT_REFERENCE_BYTES + 64];
    FlightView v;

    flight_view(pull, &v);
    (void)snprintf(text, sizeof(text), "pulling %s", v.reference);
    say(p, "pull.started", pull, text);
}

static void say_end(Puller *p, const Flight *pull, int r, const Err *err) {
    char text[sizeof(err->text) + 128];
    FlightView v;

    flight_view(pull, &v);
    if (r < 0)
        (void)snprintf(text, sizeof(text), "%s", err_text(err, r));
    else if (v.bytes_total == 0)
        (void)snprintf(text, sizeof(text), "%s is up to date", v.reference);
    else
        (void)snprintf(text, sizeof(text), "pulled %s: %s fetched, %s were here, in %s",
                       v.reference, FORMAT_BYTES(v.bytes_total), FORMAT_BYTES(v.bytes_cached),
                       FORMAT_DURATION(v.elapsed_usec));
    say(p, r < 0 ? "pull.failed" : "pull.done", pull, text);
}

static void entry_free(Entry *f) {
    (void)flight_free(f->pull);
    free(f->key);
    free(f);
}

static void check_stopped(Puller *p) {
    if (p->stopping && p->stopped && p->n_entries == 0 && p->n_lookups == 0)
        TAKE_PTR(p->stopped)(p->stopped_arg);
}

/* Starts what waits, as many as may run; somebody who waits comes before a prefetch. */
static void start_some(Puller *p) {
    size_t running = 0;

    for (size_t i = 0; i < p->n_entries; i++)
        running += p->entries[i]->running;
    for (unsigned background = 0; background < 2; background++)
        for (size_t i = 0; i < p->n_entries && running < p->options->concurrent; i++) {
            Entry *f = p->entries[i];
            if (f->running || f->background != background || p->stopping)
                continue;
            f->running = true;
            running++;
            say_start(p, f->pull);
            flight_start(f->pull, p->options);
        }
}

static void on_pull_done(void *arg, Flight *pull, int r, const Err *err) {
    Entry *f = arg;
    Puller *p = f->puller;
    FlightView v;
    size_t i = 0;

    while (p->entries[i] != f)
        i++;
    memmove(&p->entries[i], &p->entries[i + 1], (--p->n_entries - i) * sizeof(*p->entries));
    say_end(p, pull, r, err);
    flight_view(pull, &v);
    for (EnsureTicket *t; (t = f->tickets);) {
        ticket_done(t, r, err, r < 0 ? NULL : &v.manifest->digest);
        if (f->tickets == t) { /* it was not freed; its entry ends here */
            f->tickets = t->next;
            t->entry = NULL;
        }
    }
    entry_free(f);
    start_some(p);
    check_stopped(p);
}

/* A pull that is over, but is still being cleaned up, is not joined: each call tries anew. */
static Entry *find_entry(const Puller *p, const char *key) {
    for (size_t i = 0; i < p->n_entries; i++) {
        FlightView v;

        flight_view(p->entries[i]->pull, &v);
        if (v.state != FLIGHT_DONE && streq(p->entries[i]->key, key))
            return p->entries[i];
    }
    return NULL;
}

/* The ticket is the entry's from now on; a new entry is made when there is none.  Errors: as
 * flight_new(). */
static int join(Puller *p, EnsureTicket *t, const Lookup *l, Err *err) {
    const Credential *credential =
        credential_find(&l->credentials, l->reference->registry, l->reference->repository);
    FlightRequest request = { l->reference, l->platform, credential };
    Entry *f = find_entry(p, l->key);

    if (!f) {
        Flight *pull;
        int r;
        f = xnew(Entry);
        *f = (Entry){ .puller = p, .key = xstrdup(l->key), .background = l->background };
        r = flight_new(&pull, &p->context, &request, on_pull_done, f, err);
        if (r < 0) {
            entry_free(f);
            return r;
        }
        f->pull = pull;
        ARRAY_GROW(p->entries, p->n_entries, p->cap_entries);
        p->entries[p->n_entries++] = f;
    }
    f->background &= l->background;
    if (t) {
        t->lookup = NULL;
        t->entry = f;
        t->next = f->tickets;
        f->tickets = t;
    }
    start_some(p);
    return 0;
}

/* Lookups: what the store knows, before a registry is asked. */

static Lookup *lookup_free(Lookup *l) {
    (void)reference_free(l->reference);
    free(l->reference_text);
    free(l->platform);
    free(l->key);
    credential_list_done(&l->credentials);
    free(l);
    return NULL;
}

/* 1: `found` is it; 0: a registry has to be asked. */
static int run_lookup(void *arg, Err *err) {
    Lookup *l = arg;
    Store *s = l->puller->context.store;
    int r;

    if (l->policy == PULL_POLICY_ALWAYS && !l->reference->has_digest)
        return 0;
    r = store_resolve(s, l->reference_text, l->platform, &l->found, err);
    if (r == -ENOENT && l->reference->has_digest) {
        l->found = l->reference->digest;
        r = store_has_manifest(s, &l->found, err);
        if (r > 0) /* it came under another name */
            r = store_set_reference(s, l->reference_text, NULL, &l->found, err);
        else if (r == 0)
            r = -ENOENT;
    }
    if (r == -ENOENT && l->policy == PULL_POLICY_NEVER)
        return err_set(err, -ENOENT,
                       "%s is not stored here, and the pull policy is Never; "
                       "pull it with cache-ctl pull, or use IfNotPresent",
                       l->reference_text);
    if (r == -ENOENT)
        return 0;
    if (r >= 0) /* the time of use is not worth failing for */
        (void)!store_touch(s, &l->found, NULL);
    return r < 0 ? r : 1;
}

static void on_lookup(void *arg, int r, const Err *err) {
    Lookup *l = arg;
    Puller *p = l->puller;
    EnsureTicket *t = l->ticket;
    Err why = *err;

    p->n_lookups--;
    if (t)
        t->lookup = NULL;
    if (r == 0)
        r = p->stopping ? err_set(&why, -ECANCELED, "the daemon is stopping") : join(p, t, l, &why);
    if (t && !t->entry)
        ticket_done(t, r, &why, r < 0 ? NULL : &l->found);
    (void)lookup_free(l);
    check_stopped(p);
}

static PullPolicy effective_policy(const EnsureRequest *request) {
    if (request->policy != PULL_POLICY_DEFAULT)
        return request->policy;
    return !request->reference->has_digest && reference_is_latest(request->reference)
               ? PULL_POLICY_ALWAYS
               : PULL_POLICY_IF_NOT_PRESENT;
}

/* NULL is the node's. */
static int check_platform(const char *text, char **ret, Err *err) {
    char buf[PLATFORM_TEXT_MAX];
    Platform platform;
    int r = 0;

    if (isempty(text))
        platform_of_node(&platform);
    else
        r = platform_parse(&platform, text, err);
    if (r >= 0)
        *ret = xstrdup(platform_text(buf, &platform));
    return r;
}

/* Who asks the same with the same credentials gets the same pull. */
static char *make_key(const Lookup *l, const Credential *c) {
    uint8_t fingerprint[32];
    char hex[2 * sizeof(fingerprint) + 1];

    credential_fingerprint(c, fingerprint);
    format_hex(fingerprint, sizeof(fingerprint), hex);
    return xasprintf("%s %s %s", l->reference_text, l->platform, hex);
}

int puller_ensure(Puller *p, EnsureTicket **ret, const EnsureRequest *request, EnsureDone done,
                  void *done_arg, Err *err) {
    const Reference *reference = request->reference;
    const CredentialList *credentials = request->credentials && request->credentials->n > 0
                                            ? request->credentials
                                            : &p->options->credentials;
    const Credential *credential =
        credential_find(credentials, reference->registry, reference->repository);
    EnsureTicket *t = xnew(EnsureTicket);
    char *platform = NULL;
    Lookup *l;
    int r = p->stopping ? err_set(err, -ECANCELED, "the daemon is stopping")
                        : check_platform(request->platform, &platform, err);

    if (r < 0) {
        free(t);
        return r;
    }
    l = xnew(Lookup);
    *l = (Lookup){ .puller = p,
                   .reference = reference_copy(reference),
                   .reference_text = reference_text(reference),
                   .platform = platform,
                   .policy = effective_policy(request),
                   .background = request->background };
    credential_list_copy(&l->credentials, credential);
    l->key = make_key(l, credential);
    *t = (EnsureTicket){ .done = done, .done_arg = done_arg, .lookup = l };
    l->ticket = t;
    p->n_lookups++;
    pool_submit(p->pool, run_lookup, on_lookup, l);
    *ret = t;
    return 0;
}

void puller_stop(Puller *p, void (*done)(void *arg), void *arg) {
    Err err;

    (void)err_set(&err, -ECANCELED, "the daemon is stopping");
    p->stopping = true;
    p->stopped = done;
    p->stopped_arg = arg;
    for (size_t i = 0; i < p->n_entries; i++)
        flight_cancel(p->entries[i]->pull, -ECANCELED, &err);
    check_stopped(p);
}
