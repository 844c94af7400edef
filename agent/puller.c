/* SPDX-License-Identifier: Apache-2.0 */
/* puller: the queue of pulls: who asks for what, one pull for all that ask for the same, a few at a
 * time. */
#include "agent/puller.h"
#include "agent/copy.h"
#include "agent/flight_limits.h"
#include "agent/lookup.h"
#include "agent/report.h"
#include "base/log.h"
#include "base/parse.h"

/* What a request that is past its deadline waits for the registry's word. */
#define LATE_USEC (10 * USEC_PER_SEC)
/* When a pull ends, a pod may be about to start, or the next pull has its turn: that goes first. */
#define STANDBY_AFTER_USEC (100 * USEC_PER_MSEC)

/* One pull and those who wait for it. */
typedef struct Entry {
    Puller *puller;
    char *key;
    Flight *pull;
    EnsureTicket *tickets; /* first of a list */
    Askers askers;
    FlightRequest request; /* what `pull` was made of, to make another; its strings are ours */
    CredentialList credentials;
    uint8_t fingerprint[GRANT_BYTES];
    bool running;
    bool retried;            /* after there was no space */
    uint64_t until_usec;     /* the last deadline of all who asked, also of those who left; 0: one
                                has none */
    sd_event_source *expiry; /* the next deadline */
} Entry;

/* A look into the store on behalf of a request; goes on when its ticket is freed. */
typedef struct Look {
    Puller *puller;
    EnsureTicket *ticket; /* NULL: freed */
    CredentialList credentials;
    bool background;
    uint64_t deadline_usec;
    Asker asker;
    Lookup q;
} Look;

struct EnsureTicket {
    EnsureDone done;
    void *done_arg;
    AccessGiver giver;
    Look *lookup; /* one of the two, or neither once it is done */
    Entry *entry;
    uint64_t deadline_usec; /* 0: none */
    EnsureTicket *next;     /* of the entry */
};

struct Puller {
    FlightContext context;
    FlightWorkers workers; /* of the context */
    Pool *pool;            /* of lookups; the context has that of pulls */
    PullOptions *options;
    Report report;
    Entry **entries; /* oldest first */
    size_t n_entries, cap_entries;
    size_t n_lookups;
    bool fetches;           /* the last pull had something to fetch, so the next one may, too */
    bool scheduling, again; /* schedule() runs, and something changed meanwhile */
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static uint64_t promised(void *arg, const Flight *except) {
    Puller *p = arg;
    uint64_t sum = 0;

    for (size_t i = 0; i < p->n_entries; i++)
        if (p->entries[i]->pull != except)
            sum += flight_promised(p->entries[i]->pull);
    return sum;
}

static void schedule(void *arg);

void puller_prepare_standby(const Puller *p, uint64_t after_usec) {
    if (!p->stopping && p->n_entries == 0)
        standby_prepare(p->context.standby,
                        &(StandbyPlan){ .after_usec = after_usec,
                                        .keep_usec = p->options->standby_usec,
                                        .tls = pull_options_tls_is_likely(p->options),
                                        .memory_bytes = p->fetches ? p->options->memory_bytes : 0,
                                        .fill_bytes = pull_options_first_memory(p->options) });
}

void puller_new(Puller **ret, const PullerOptions *o) {
    Puller *p = xnew(Puller);

    p->context = (FlightContext){ .event = sd_event_ref(o->event),
                                  .store = o->store,
                                  .pool = o->bulk,
                                  .standby = o->standby,
                                  .shares = shares_new(),
                                  .metrics = o->metrics,
                                  .workers = &p->workers,
                                  .promised = promised,
                                  .changed = schedule,
                                  .arg = p };
    p->options = pull_options_ref(o->options);
    p->fetches = true;
    p->pool = o->pool;
    p->report = (Report){ o->on_event, o->arg, o->metrics };
    *ret = p;
}

void puller_set_options(Puller *p, PullOptions *options) {
    PullOptions *old = p->options;

    p->options = pull_options_ref(options);
    (void)pull_options_unref(old);
    schedule(p);
    if (options->standby_usec == 0)
        standby_prepare(p->context.standby, &(StandbyPlan){ 0 });
}

Puller *puller_free(Puller *p) {
    if (!p)
        return NULL;
    /* puller_stop(), then pool_free() */
    assert(p->n_entries == 0 && p->n_lookups == 0 && p->workers.n == 0 && p->workers.memory == 0);
    (void)pull_options_unref(p->options);
    (void)shares_free(p->context.shares);
    (void)sd_event_unref(p->context.event);
    free(p->entries);
    free(p);
    return NULL;
}

size_t puller_count(const Puller *p) {
    return p->n_entries;
}

const Flight *puller_get(const Puller *p, size_t i) {
    return p->entries[i]->pull;
}

uint64_t puller_memory(const Puller *p) {
    return p->workers.memory;
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

const char *puller_ticket_pull_id(const EnsureTicket *t) {
    return t->entry ? flight_id(t->entry->pull) : "";
}

static void ticket_done(EnsureTicket *t, int r, const Err *err, const Digest *artifact) {
    Err why = { "" };

    if (r < 0)
        why = *err;
    if (r < 0 && t->entry && flight_is_refused(t->entry->pull))
        access_advise(&why, r, t->giver);
    t->done(t->done_arg, r, &why, artifact); /* may free it */
}

/* Entries. */

static void entry_free(Entry *f) {
    (void)sd_event_source_disable_unref(f->expiry);
    (void)flight_free(f->pull);
    (void)reference_free((Reference *)f->request.reference);
    free((char *)f->request.platform);
    (void)filter_free((Filter *)f->request.filter);
    credential_list_done(&f->credentials);
    askers_done(&f->askers);
    free(f->key);
    free(f);
}

static void check_stopped(Puller *p) {
    if (p->stopping && p->stopped && p->n_entries == 0 && p->n_lookups == 0)
        TAKE_PTR(p->stopped)(p->stopped_arg);
}

/* What runs: those that somebody waits for, and the others; and of both those that will be in the
 * background when nobody waits for a layer of theirs. */
typedef struct Running {
    unsigned wanted, background, unasked;
} Running;

static Running count_running(const Puller *p) {
    Running n = { 0 };

    for (size_t i = 0; i < p->n_entries; i++) {
        bool wanted = flight_is_wanted(p->entries[i]->pull);

        n.wanted += p->entries[i]->running && wanted;
        n.background += p->entries[i]->running && !wanted;
        n.unasked += p->entries[i]->running && !flight_is_asked_for(p->entries[i]->pull);
    }
    return n;
}

/* Pulls that somebody waits for do not wait for the others; these have what is left, and one of
 * them has a turn beside.  Never more than pull_options_max_running() run. */
static bool has_turn(const Puller *p, const Entry *f) {
    Running n = count_running(p);

    if (flight_is_wanted(f->pull))
        return n.wanted < p->options->concurrent;
    if (n.unasked >= p->options->concurrent)
        return false;
    return n.wanted + n.background <
           (n.background == 0 ? pull_options_max_running(p->options) : p->options->concurrent);
}

static void start(Puller *p, Entry *f) {
    f->running = true;
    if (!f->retried)
        report_started(&p->report, f->pull, &f->askers.items[0]);
    flight_start(f->pull, p->options);
}

/* The oldest first; those that somebody waits for before the others. */
static bool start_one(Puller *p) {
    for (unsigned background = 0; background < 2 && !p->stopping; background++)
        for (size_t i = 0; i < p->n_entries; i++) {
            Entry *f = p->entries[i];

            if (!flight_is_queued(f->pull) || flight_is_wanted(f->pull) == background ||
                !has_turn(p, f))
                continue;
            start(p, f);
            return true;
        }
    return false;
}

static void set_limits(Puller *p) {
    _cleanup_free_ Flight **running = xnew_n(Flight *, MAX(p->n_entries, (size_t)1));
    size_t n = 0;

    for (size_t i = 0; i < p->n_entries; i++)
        if (p->entries[i]->running)
            running[n++] = p->entries[i]->pull;
    flight_limits_set(running, n, p->options, &p->workers);
}

/* Starts what has a turn, and divides what the node may use.  Pulls that it starts call it again.
 */
static void schedule(void *arg) {
    Puller *p = arg;

    p->again = true;
    if (p->scheduling)
        return;
    p->scheduling = true;
    while (p->again) {
        p->again = false;
        while (start_one(p))
            ;
        set_limits(p);
    }
    p->scheduling = false;
}

static void on_pull_done(void *arg, Flight *pull, int r, const Err *err);

static int make_pull(Entry *f, Err *err) {
    f->request.credential = f->credentials.n > 0 ? f->credentials.items : NULL;
    f->request.fingerprint = f->fingerprint;
    return flight_new(&f->pull, &f->puller->context, &f->request, on_pull_done, f, err);
}

static bool is_past(uint64_t deadline_usec, uint64_t now) {
    return deadline_usec > 0 && deadline_usec <= now;
}

/* When something was dropped because there was no space, it may fit now. */
static bool try_again(Entry *f, Flight *pull, int r) {
    Err err = { "" };

    if (r != -ENOSPC || f->retried || !flight_freed(pull).some || f->puller->stopping ||
        is_past(f->until_usec, now_usec()))
        return false;
    f->request.wanted = flight_is_wanted(pull);
    f->request.id = flight_id(pull);
    r = make_pull(f, &err);
    f->request.id = NULL;
    if (r < 0) {
        f->pull = pull;
        return false;
    }
    report_retry(&f->puller->report, pull, &f->askers.items[0]);
    (void)flight_free(pull);
    f->retried = true;
    f->running = false;
    schedule(f->puller);
    return true;
}

static void on_pull_done(void *arg, Flight *pull, int r, const Err *err) {
    Entry *f = arg;
    Puller *p = f->puller;
    FlightView v;
    size_t i = 0;

    if (try_again(f, pull, r))
        return;
    while (p->entries[i] != f)
        i++;
    memmove(&p->entries[i], &p->entries[i + 1], (--p->n_entries - i) * sizeof(*p->entries));
    report_ended(&p->report, pull, &f->askers.items[0], r, err);
    flight_view(pull, &v);
    p->fetches = v.bytes_total > 0;
    for (EnsureTicket *t; (t = f->tickets);) {
        ticket_done(t, r, err, r < 0 ? NULL : v.artifact);
        if (f->tickets == t) { /* it was not freed; its entry ends here */
            f->tickets = t->next;
            t->entry = NULL;
        }
    }
    entry_free(f);
    schedule(p);
    puller_prepare_standby(p, STANDBY_AFTER_USEC);
    check_stopped(p);
}

/* Deadlines: who has one leaves the pull then, and when all have left it ends. */

static void set_expiry(Entry *f);

/* The callback may free its ticket, and end the interest of others. */
static void expire_tickets(Entry *f, uint64_t now, int r, const Err *err) {
    EnsureTicket **link = &f->tickets;

    while (*link) {
        EnsureTicket *t = *link;

        if (!is_past(t->deadline_usec, now)) {
            link = &t->next;
            continue;
        }
        *link = t->next;
        t->entry = NULL;
        ticket_done(t, r, err, NULL);
        link = &f->tickets;
    }
}

static int on_expiry(sd_event_source *source, uint64_t usec, void *arg) {
    Entry *f = arg;
    uint64_t now = now_usec();
    char progress[FLIGHT_WAITING_MAX + 128];
    FlightView v;
    Err err;
    int r;

    (void)source;
    (void)usec;
    flight_view(f->pull, &v);
    flight_text(f->pull, progress, sizeof(progress));
    r = err_set(&err, -ETIMEDOUT, "%.300s is not here in time (%.600s)", v.reference, progress);
    if (v.state < FLIGHT_COMMITTING && is_past(f->until_usec, now))
        flight_cancel(f->pull, r, &err);
    expire_tickets(f, now, r, &err);
    set_expiry(f);
    return 0;
}

static void set_expiry(Entry *f) {
    uint64_t now = now_usec(), next = f->until_usec > now ? f->until_usec : 0;

    for (const EnsureTicket *t = f->tickets; t; t = t->next)
        if (t->deadline_usec > 0 && (next == 0 || t->deadline_usec < next))
            next = t->deadline_usec;
    f->expiry = sd_event_source_disable_unref(f->expiry);
    if (next > 0 && loop_timer_after(f->puller->context.event, &f->expiry,
                                     next > now ? next - now : 0, on_expiry, f) < 0)
        log_warn("cannot set a timer: the pull is waited for as long as it takes");
}

static void note_deadline(Entry *f, uint64_t deadline_usec, bool is_new) {
    if (deadline_usec == 0)
        f->until_usec = 0;
    else if (is_new || f->until_usec > 0)
        f->until_usec = MAX(f->until_usec, deadline_usec);
    set_expiry(f);
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

static AccessAim aim_of(PullPolicy policy) {
    return policy == PULL_POLICY_ALWAYS  ? ACCESS_AIM_FETCH
           : policy == PULL_POLICY_NEVER ? ACCESS_AIM_CHECK
                                         : ACCESS_AIM_KEEP;
}

static void count_request(const Puller *p, MetricOutcome outcome) {
    metrics_add(p->report.metrics, METRIC_ARTIFACT_REQUESTS, METRIC_LABEL(outcome), 1);
}

/* Who asks the same with the same credentials gets the same pull: nobody has what others may. */
static char *make_key(const Look *l, bool late) {
    _cleanup_free_ char *filter = filter_text(l->q.filter);
    char hex[2 * GRANT_BYTES + 1];

    format_hex(l->q.fingerprint, GRANT_BYTES, hex);
    return xasprintf("%s %s %s %d %d %s", l->q.reference_text, l->q.platform, hex,
                     (int)aim_of(l->q.policy), (int)late, filter);
}

/* The ticket is the entry's from now on; a new entry is made when there is none.  Errors: as
 * flight_new().  Past its deadline a request still has what is stored, once the registry lets it
 * in: that is asked, of all, whether it is stored or not. */
static int join(Puller *p, EnsureTicket *t, const Look *l, Err *err) {
    const Credential *credential =
        credential_find(&l->credentials, l->q.reference->registry, l->q.reference->repository);
    const uint64_t now = now_usec();
    const bool late = is_past(l->deadline_usec, now);
    const uint64_t deadline = late ? now + LATE_USEC : l->deadline_usec;
    _cleanup_free_ char *key = make_key(l, late);
    Entry *f = find_entry(p, key);
    bool is_new = !f;

    if (is_new) {
        int r;
        f = xnew(Entry);
        *f = (Entry){ .puller = p,
                      .key = TAKE_PTR(key),
                      .request = { .reference = reference_copy(l->q.reference),
                                   .platform = xstrdup(l->q.platform),
                                   .filter = filter_copy(l->q.filter),
                                   .aim = aim_of(l->q.policy),
                                   .open = l->q.open,
                                   .late = late,
                                   .wanted = !l->background } };
        credential_list_copy(&f->credentials, credential);
        memcpy(f->fingerprint, l->q.fingerprint, GRANT_BYTES);
        (void)askers_add(&f->askers, &l->asker); /* is the first */
        r = make_pull(f, err);
        if (r < 0) {
            entry_free(f);
            return r;
        }
        ARRAY_GROW(p->entries, p->n_entries, p->cap_entries);
        p->entries[p->n_entries++] = f;
        count_request(p, METRIC_PULL);
    } else {
        count_request(p, METRIC_JOINED);
        if (askers_add(&f->askers, &l->asker))
            report_joined(&p->report, f->pull, &l->asker);
    }
    if (!l->background)
        flight_want(f->pull);
    if (t) {
        t->lookup = NULL;
        t->entry = f;
        t->deadline_usec = deadline;
        t->next = f->tickets;
        f->tickets = t;
    }
    note_deadline(f, deadline, is_new);
    schedule(p);
    return 0;
}

/* Lookups: what the store knows, before a registry is asked. */

static Look *look_free(Look *l) {
    lookup_done(&l->q);
    credential_list_done(&l->credentials);
    asker_done(&l->asker);
    free(l);
    return NULL;
}

static int run_lookup(void *arg, Err *err) {
    Look *l = arg;

    return lookup_run(l->puller->context.store, &l->q, err);
}

static int run_subset(void *arg, Err *err) {
    Look *l = arg;

    return lookup_make_subset(l->puller->context.store, &l->q, err);
}

static void on_lookup(void *arg, int r, const Err *err) {
    Look *l = arg;
    Puller *p = l->puller;
    EnsureTicket *t = l->ticket;
    Err why = *err;

    /* The pool of pulls may have ended already. */
    if (p->stopping && (r == ACCESS_WHOLE || r == ACCESS_ABSENT))
        r = err_set(&why, -ECANCELED, "the daemon is stopping");
    if (r == ACCESS_WHOLE) { /* the tree may be large */
        pool_submit(p->context.pool, run_subset, on_lookup, l);
        return;
    }
    p->n_lookups--;
    if (t)
        t->lookup = NULL;
    if (r > 0)
        count_request(p, METRIC_HIT);
    else if (r == ACCESS_ABSENT)
        r = join(p, t, l, &why);
    if (r < 0)
        count_request(p, METRIC_FAILED);
    if (t && !t->entry)
        ticket_done(t, r, &why, r < 0 ? NULL : &l->q.found);
    (void)look_free(l);
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

static AccessGiver giver_of(const EnsureRequest *request, const Credential *c) {
    return request->trusted                                      ? ACCESS_GIVER_ADMIN
           : !c                                                  ? ACCESS_GIVER_NOBODY
           : request->credentials && request->credentials->n > 0 ? ACCESS_GIVER_VOLUME
                                                                 : ACCESS_GIVER_NODE;
}

/* Takes `platform` over. */
static Look *look_new(Puller *p, const EnsureRequest *request, char *platform,
                      const Credential *credential) {
    Look *l = xnew(Look);

    *l = (Look){ .puller = p,
                 .background = request->background,
                 .deadline_usec = request->deadline_usec,
                 .asker = asker_copy(&request->asker),
                 .q = { .reference = reference_copy(request->reference),
                        .reference_text = reference_text(request->reference),
                        .platform = platform,
                        .filter = filter_copy(request->filter),
                        .policy = effective_policy(request),
                        .check = request->trusted
                                     ? ACCESS_CHECK_NEVER
                                     : pull_options_access_check(p->options, request->reference),
                        .lifetime_usec = p->options->access_lifetime_usec,
                        .open = p->options->access_open && !request->trusted } };
    credential_list_copy(&l->credentials, credential);
    credential_fingerprint(credential, l->q.fingerprint);
    return l;
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
    Look *l;
    int r = p->stopping ? err_set(err, -ECANCELED, "the daemon is stopping")
                        : check_platform(request->platform, &platform, err);

    if (r < 0) {
        free(t);
        return r;
    }
    l = look_new(p, request, platform, credential);
    *t = (EnsureTicket){ .done = done,
                         .done_arg = done_arg,
                         .giver = giver_of(request, credential),
                         .lookup = l,
                         .deadline_usec = request->deadline_usec };
    l->ticket = t;
    p->n_lookups++;
    pool_submit(p->pool, run_lookup, on_lookup, l);
    *ret = t;
    return 0;
}

void puller_stop(Puller *p, void (*done)(void *arg), void *arg) {
    p->stopping = true;
    p->stopped = done;
    p->stopped_arg = arg;
    p->workers.closing = true;
    for (size_t i = 0; i < p->n_entries; i++) {
        FlightView v;
        Err err;

        flight_view(p->entries[i]->pull, &v);
        (void)err_set(&err, -ECANCELED, "%s: the daemon is stopping", v.reference);
        flight_cancel(p->entries[i]->pull, -ECANCELED, &err);
    }
    flight_end_workers(&p->context); /* after the ends of those that are cancelled */
    check_stopped(p);
}
