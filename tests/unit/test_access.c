/* SPDX-License-Identifier: Apache-2.0 */
/* test_access: who gets what is stored, and what the others hear; with a real store and fake
 * workers: see fake_refuses(). */
#include "agent/access.h"
#include "tests/unit/agent_env.h"

static void ask(AgentEnv *e, Caller *a, const char *text, PullPolicy policy) {
    _cleanup_(reference_freep) Reference *reference = NULL;
    _cleanup_(credential_list_done) CredentialList credentials = { 0 };
    EnsureRequest request = { .policy = policy, .credentials = &credentials };
    Err err = { "" };

    ASSERT_OK(reference_parse(&reference, text, &err));
    if (a->password)
        ASSERT_OK(credential_add(&credentials, reference->registry, "user", a->password, &err));
    request.reference = reference;
    request.trusted = a->trusted;
    request.filter = a->filter;
    request.deadline_usec = a->late ? 1 : 0;
    a->done = 0;
    ASSERT_OK(puller_ensure(e->puller, &a->ticket, &request, caller_done, a, &err));
}

static Caller *get(AgentEnv *e, Caller *a, const char *text, PullPolicy policy) {
    ask(e, a, text, policy);
    agent_env_wait(e, &a->done, 1);
    return a;
}

static void beside_the_store(TmpDir *dir, const char *name) {
    safe_close(openat(tmpdir_fd(dir), name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
}

#define ASKER(...)          (&(Caller){ __VA_ARGS__ })
#define WITH(password_)     ASKER(.password = (password_))
#define GOOD                WITH("good")
#define NOBODY              WITH(NULL)
#define PRIVATE             "r.example/private:1"
#define ASSERT_GIVEN(a)     assert_given(__LINE__, (a))
#define ASSERT_REFUSED(...) assert_refused(__LINE__, __VA_ARGS__)

static const Caller *assert_given(int line, const Caller *a) {
    if (a->r < 0)
        test_fail(__FILE__, line, "%s", err_text(&a->err, a->r));
    return a;
}

static void assert_refused(int line, const Caller *a, int r, const char *words) {
    if (a->r != r || !strstr(a->err.text, words))
        test_fail(__FILE__, line, "%d: %s", a->r, a->r < 0 ? a->err.text : "given");
}

TEST(access_is_for_whom_the_registry_lets_in) {
    static const PullPolicy policies[] = { PULL_POLICY_ALWAYS, PULL_POLICY_IF_NOT_PRESENT,
                                           PULL_POLICY_NEVER };
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *by_digest = NULL;
    AgentEnv e;
    Caller a = { .password = "good" };

    agent_env_init(&e, dir, NULL);
    ASSERT_GIVEN(get(&e, &a, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    by_digest = xasprintf("r.example/private@%s", DIGEST_STR(&a.manifest));
    for (size_t i = 0; i < ELEMENTSOF(policies); i++) {
        const char *const texts[] = { PRIVATE, by_digest, "r.example/private:other" };

        for (size_t k = 0; k < ELEMENTSOF(texts); k++) {
            ASSERT_REFUSED(get(&e, NOBODY, texts[k], policies[i]), -EKEYREJECTED,
                           "who are you?; no credentials were given");
            ASSERT_REFUSED(get(&e, WITH("bad"), texts[k], policies[i]), -EKEYREJECTED,
                           "who are you?; these are those of the volume's secret");
        }
    }
    ASSERT_TRUE(!ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_NEVER))->had_pull);
    ASSERT_TRUE(!ASSERT_GIVEN(get(&e, GOOD, by_digest, PULL_POLICY_ALWAYS))->had_pull);
    agent_env_done(&e);
}

/* Of the two, one is stored: nothing but the name may differ. */
TEST(access_refusals_do_not_tell_what_is_stored) {
    static const PullPolicy policies[] = { PULL_POLICY_ALWAYS, PULL_POLICY_IF_NOT_PRESENT,
                                           PULL_POLICY_NEVER };
    static const char *const passwords[] = { NULL, "bad", "down" };
    STORE_TEST_DIR(dir);
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    ASSERT_GIVEN(get(&e, GOOD, "r.example/private/x:1", PULL_POLICY_IF_NOT_PRESENT));
    for (size_t i = 0; i < ELEMENTSOF(policies) * ELEMENTSOF(passwords); i++) {
        PullPolicy policy = policies[i / ELEMENTSOF(passwords)];
        Caller stored = { .password = passwords[i % ELEMENTSOF(passwords)] }, absent = stored;

        ASSERT_TRUE(get(&e, &stored, "r.example/private/x:1", policy)->had_pull);
        ASSERT_TRUE(get(&e, &absent, "r.example/private/y:1", policy)->had_pull);
        ASSERT_TRUE(stored.r < 0);
        ASSERT_EQ(stored.r, absent.r);
        for (char *p = absent.err.text; (p = strstr(p, "private/y"));)
            memcpy(p, "private/x", strlen("private/x"));
        ASSERT_STREQ(stored.err.text, absent.err.text);
    }
    agent_env_done(&e);
}

TEST(access_of_others_is_checked_once_and_changes_nothing) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller first = { .password = "good" }, open = { .password = "bad" };

    agent_env_init(&e, dir, NULL);
    ASSERT_GIVEN(
        get(&e, ASKER(.password = "good", .trusted = true), PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_TRUE(!ASSERT_GIVEN(get(&e, &first, PRIVATE, PULL_POLICY_NEVER))->had_pull);
    ASSERT_GIVEN(get(&e, NOBODY, "r.example/open:1", PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_TRUE(!ASSERT_GIVEN(get(&e, &open, "r.example/open:1", PULL_POLICY_NEVER))
                     ->had_pull); /* what all may have */
    agent_env_done(&e);
}

/* A second credential: it is checked, and gets what is stored although the tag moved. */
TEST(access_check_gives_what_is_stored) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller first = { .password = "good" }, second = first, third = first;

    agent_env_init(&e, dir, "access.check=always");
    ASSERT_GIVEN(get(&e, &first, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    beside_the_store(dir, "moved");
    ASSERT_TRUE(ASSERT_GIVEN(get(&e, &second, PRIVATE, PULL_POLICY_NEVER))->had_pull);
    ASSERT_TRUE(digest_equal(&first.manifest, &second.manifest));
    ASSERT_GIVEN(get(&e, &second, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_TRUE(digest_equal(&first.manifest, &second.manifest));
    ASSERT_GIVEN(get(&e, &third, PRIVATE, PULL_POLICY_ALWAYS));
    ASSERT_TRUE(!digest_equal(&first.manifest, &third.manifest));
    ASSERT_REFUSED(get(&e, GOOD, "r.example/private:absent", PULL_POLICY_NEVER), -ENOENT,
                   "is not stored here for ");
    agent_env_done(&e);
}

TEST(access_ends_with_the_password) {
    STORE_TEST_DIR(dir);
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    beside_the_store(dir, "revoked");
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT)); /* it is remembered … */
    ASSERT_REFUSED(get(&e, GOOD, PRIVATE, PULL_POLICY_ALWAYS), -EKEYREJECTED, "who are you");
    ASSERT_REFUSED(get(&e, GOOD, PRIVATE, PULL_POLICY_NEVER), -EKEYREJECTED,
                   "who are you"); /* … until then */
    agent_env_done(&e);
}

static void not_beside_the_store(TmpDir *dir, const char *name) {
    ASSERT_OK(unlinkat(tmpdir_fd(dir), name, 0));
}

/* Many registries say 404 to whom they do not let in. */
TEST(access_ends_when_the_registry_hides_the_repository) {
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *by_digest = NULL;
    AgentEnv e;
    Caller a = { .password = "good" };

    agent_env_init(&e, dir, NULL);
    ASSERT_GIVEN(get(&e, &a, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    by_digest = xasprintf("r.example/private@%s", DIGEST_STR(&a.manifest));
    beside_the_store(dir, "404");
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT)); /* it is remembered … */
    ASSERT_REFUSED(get(&e, GOOD, PRIVATE, PULL_POLICY_ALWAYS), -ENOENT, "404");
    ASSERT_REFUSED(get(&e, GOOD, PRIVATE, PULL_POLICY_NEVER), -ENOENT, "404"); /* … until then */
    ASSERT_REFUSED(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT), -ENOENT, "404");
    ASSERT_REFUSED(get(&e, GOOD, by_digest, PULL_POLICY_ALWAYS), -ENOENT, "404");
    not_beside_the_store(dir, "404");
    ASSERT_TRUE(ASSERT_GIVEN(get(&e, GOOD, by_digest, PULL_POLICY_NEVER))->had_pull);
    ASSERT_TRUE(!ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_NEVER))->had_pull);
    agent_env_done(&e);
}

/* A slip of one tenant takes nothing from the others. */
TEST(access_stays_when_a_name_was_never_here) {
    STORE_TEST_DIR(dir);
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_GIVEN(get(&e, NOBODY, "r.example/open:1", PULL_POLICY_IF_NOT_PRESENT));
    beside_the_store(dir, "404");
    ASSERT_REFUSED(get(&e, GOOD, "r.example/private:slip", PULL_POLICY_ALWAYS), -ENOENT, "404");
    ASSERT_REFUSED(get(&e, NOBODY, "r.example/open:slip", PULL_POLICY_ALWAYS), -ENOENT, "404");
    ASSERT_REFUSED(get(&e, GOOD, "r.example/open:slip", PULL_POLICY_ALWAYS), -ENOENT, "404");
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_NEVER));
    ASSERT_GIVEN(get(&e, NOBODY, "r.example/open:1", PULL_POLICY_NEVER));
    agent_env_done(&e);
}

/* A public repository became private; what a stranger hears of a password says nothing of it. */
TEST(access_of_nobody_ends_too) {
    static const struct {
        const char *answer, *password; /* who hears it */
        int r;
        bool ends;
    } cases[] = { { "401", NULL, -EKEYREJECTED, true },
                  { "403", NULL, -EACCES, true },
                  { "404", NULL, -ENOENT, true },
                  { "401", "bad", -EKEYREJECTED, false },
                  { "403", "bad", -EACCES, true },
                  { "404", "bad", -ENOENT, true },
                  { "403-of-a-proxy", "bad", -EACCES, false },
                  { "no-platform", NULL, -ENOENT, false } };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        STORE_TEST_DIR(dir);
        AgentEnv e;

        agent_env_init(&e, dir, NULL);
        ASSERT_GIVEN(get(&e, NOBODY, "r.example/open:1", PULL_POLICY_IF_NOT_PRESENT));
        beside_the_store(dir, cases[i].answer);
        ASSERT_REFUSED(get(&e, WITH(cases[i].password), "r.example/open:1", PULL_POLICY_ALWAYS),
                       cases[i].r, cases[i].answer);
        for (int known = 0; known < 2; known++) {
            Caller again = { .password = known ? "bad" : NULL };

            (void)get(&e, &again, "r.example/open:1", PULL_POLICY_NEVER);
            ASSERT_EQ(MIN(again.r, 0), cases[i].ends ? cases[i].r : 0);
        }
        agent_env_done(&e);
    }
}

TEST(access_stays_when_the_registry_only_lacks_the_platform) {
    STORE_TEST_DIR(dir);
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    beside_the_store(dir, "no-platform");
    ASSERT_REFUSED(get(&e, GOOD, PRIVATE, PULL_POLICY_ALWAYS), -ENOENT, "no-platform");
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_NEVER));
    agent_env_done(&e);
}

TEST(access_check_always_asks_each_time) {
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *by_digest = NULL;
    AgentEnv e;
    Caller a = { .password = "good" };

    agent_env_init(&e, dir, "registries.r.example.access_check=always");
    ASSERT_GIVEN(get(&e, &a, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    by_digest = xasprintf("r.example/private@%s", DIGEST_STR(&a.manifest));
    ASSERT_TRUE(ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_NEVER))->had_pull);
    beside_the_store(dir, "revoked");
    ASSERT_REFUSED(get(&e, GOOD, PRIVATE, PULL_POLICY_NEVER), -EKEYREJECTED, "who are you");
    ASSERT_REFUSED(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT), -EKEYREJECTED, "who are");
    ASSERT_REFUSED(get(&e, GOOD, by_digest, PULL_POLICY_ALWAYS), -EKEYREJECTED, "who are you");
    agent_env_done(&e);
}

TEST(access_check_never_gives_to_all) {
    STORE_TEST_DIR(dir);
    AgentEnv e;

    agent_env_init(&e, dir, "registries.r.example.access_check=never");
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_TRUE(!ASSERT_GIVEN(get(&e, NOBODY, PRIVATE, PULL_POLICY_NEVER))->had_pull);
    ASSERT_GIVEN(get(&e, WITH("good"), "s.example/private:1", PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_REFUSED(get(&e, NOBODY, "s.example/private:1", PULL_POLICY_NEVER), -EKEYREJECTED,
                   "who are you"); /* another registry */
    agent_env_done(&e);
}

TEST(access_of_the_administrator_is_not_checked) {
    STORE_TEST_DIR(dir);
    AgentEnv e;

    agent_env_init(&e, dir, "access.check=always");
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_GIVEN(get(&e, ASKER(.trusted = true), PRIVATE, PULL_POLICY_NEVER));
    ASSERT_REFUSED(get(&e, ASKER(.trusted = true), "r.example/private:2", PULL_POLICY_NEVER),
                   -ENOENT, "is not stored here");
    ASSERT_REFUSED(get(&e, NOBODY, PRIVATE, PULL_POLICY_NEVER), -EKEYREJECTED, "who are you");
    agent_env_done(&e);
}

TEST(access_is_refused_while_the_registry_is_down) {
    STORE_TEST_DIR(dir);
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_REFUSED(get(&e, WITH("down"), PRIVATE, PULL_POLICY_NEVER), -ECONNREFUSED, "nobody");
    ASSERT_REFUSED(get(&e, WITH("down"), PRIVATE, PULL_POLICY_IF_NOT_PRESENT), -ECONNREFUSED,
                   "nobody is there");
    agent_env_done(&e);
}

TEST(access_is_given_while_the_registry_is_down_where_that_is_set) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller first = { .password = "good" }, down = { .password = "down" };

    agent_env_init(&e, dir, "access.unreachable=allow");
    ASSERT_GIVEN(get(&e, &first, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_GIVEN(get(&e, &down, PRIVATE, PULL_POLICY_NEVER));
    ASSERT_TRUE(digest_equal(&first.manifest, &down.manifest));
    ASSERT_TRUE(ASSERT_GIVEN(get(&e, &down, PRIVATE, PULL_POLICY_IF_NOT_PRESENT))
                    ->had_pull); /* it was not remembered */
    ASSERT_REFUSED(get(&e, WITH("down"), PRIVATE, PULL_POLICY_ALWAYS), -ECONNREFUSED, "nobody");
    ASSERT_REFUSED(get(&e, WITH("down"), "r.example/private:2", PULL_POLICY_NEVER), -ECONNREFUSED,
                   "nobody"); /* nothing to give */
    ASSERT_REFUSED(get(&e, WITH("bad"), PRIVATE, PULL_POLICY_NEVER), -EKEYREJECTED, "who are");
    agent_env_done(&e);
}

/* A pod does not wait a minute for what it gets anyway; but a pull has its time. */
TEST(access_waits_only_shortly_where_what_is_stored_is_given) {
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *log = NULL;
    AgentEnv e;
    Err err = { "" };

    agent_env_init(&e, dir, "access.unreachable=allow");
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_GIVEN(get(&e, WITH("down"), PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    (void)get(&e, WITH("bad"), PRIVATE, PULL_POLICY_ALWAYS);
    (void)get(&e, GOOD, "r.example/private:2", PULL_POLICY_IF_NOT_PRESENT);
    ASSERT_OK(fs_read_file(tmpdir_fd(dir), "fake.log", KiB(64), &log, NULL, &err));
    ASSERT_STRSTR(log, "good patience 30 60\n");
    ASSERT_STRSTR(log, "down patience 5 5\n");
    ASSERT_STRSTR(log, "bad patience 30 60\n");
    ASSERT_TRUE(!strstr(log, "good patience 5"));
    agent_env_done(&e);
}

TEST(access_of_different_policies_is_not_joined) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller fetches = { .password = "good" }, checks = fetches;

    agent_env_init(&e, dir, NULL);
    ask(&e, &fetches, "r.example/slow-private:1", PULL_POLICY_ALWAYS);
    while (puller_count(e.puller) == 0)
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
    ASSERT_REFUSED(get(&e, &checks, "r.example/slow-private:1", PULL_POLICY_NEVER), -ENOENT,
                   "is not stored here");
    ASSERT_EQ(fetches.done, 0);
    agent_env_wait(&e, &fetches.done, 1);
    ASSERT_GIVEN(&fetches);
    agent_env_done(&e);
}

#define LATE(password_) ASKER(.password = (password_), .late = true)

/* Who is too late is asked for as everybody, and has what is stored; nothing comes for it. */
TEST(access_of_who_is_late_is_checked_all_the_same) {
    static const PullPolicy policies[] = { PULL_POLICY_ALWAYS, PULL_POLICY_IF_NOT_PRESENT };
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *before = NULL, *after = NULL;
    AgentEnv e;
    Err err = { "" };

    agent_env_init(&e, dir, "access.check=always");
    ASSERT_GIVEN(get(&e, GOOD, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_OK(fs_read_file(tmpdir_fd(dir), "fake.log", KiB(64), &before, NULL, &err));
    for (size_t i = 0; i < ELEMENTSOF(policies); i++) {
        ASSERT_GIVEN(get(&e, LATE("good"), PRIVATE, policies[i]));
        ASSERT_REFUSED(get(&e, LATE("bad"), PRIVATE, policies[i]), -EKEYREJECTED, "who are you");
        ASSERT_REFUSED(get(&e, LATE("bad"), "r.example/private/x:1", policies[i]), -EKEYREJECTED,
                       "who are you");
        ASSERT_REFUSED(get(&e, LATE("good"), "r.example/private/x:1", policies[i]), -ETIMEDOUT,
                       "is not stored here, and is not pulled any more");
        ASSERT_REFUSED(get(&e, LATE(NULL), "r.example/absent:1", policies[i]), -ENOENT,
                       "no such tag"); /* cache-ctl pull would not bring it */
    }
    beside_the_store(dir, "moved");
    ASSERT_GIVEN(get(&e, LATE("good"), PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    ASSERT_REFUSED(get(&e, LATE("good"), PRIVATE, PULL_POLICY_ALWAYS), -ETIMEDOUT,
                   "is not pulled any more");
    ASSERT_OK(fs_read_file(tmpdir_fd(dir), "fake.log", KiB(64), &after, NULL, &err));
    ASSERT_TRUE(strstr(before, "fetch") && !strstr(after + strlen(before), "fetch"));
    agent_env_done(&e);
}

/* Whatever the policy: nothing has to come for it. */
TEST(access_of_who_is_late_to_a_subset_of_what_is_stored) {
    static const PullPolicy policies[] = { PULL_POLICY_ALWAYS, PULL_POLICY_IF_NOT_PRESENT,
                                           PULL_POLICY_NEVER };
    STORE_TEST_DIR(dir);
    _cleanup_(filter_freep) Filter *json = NULL;
    AgentEnv e;
    Caller whole = { .password = "good" }, late = { .password = "good", .late = true };
    Err err = { "" };

    ASSERT_OK(filter_parse(&json, "*.json", NULL, &err));
    late.filter = json;
    agent_env_init(&e, dir, "access.check=always");
    ASSERT_GIVEN(get(&e, &whole, PRIVATE, PULL_POLICY_IF_NOT_PRESENT));
    for (size_t i = 0; i < ELEMENTSOF(policies); i++) {
        Digest subset;

        ASSERT_REFUSED(
            get(&e, ASKER(.password = "bad", .late = true, .filter = json), PRIVATE, policies[i]),
            -EKEYREJECTED, "who are you");
        ASSERT_GIVEN(get(&e, &late, PRIVATE, policies[i]));
        filter_key(json, &whole.manifest, &subset);
        ASSERT_TRUE(digest_equal(&late.manifest, &subset));
        ASSERT_OK(store_remove(e.store, NULL, NULL, &subset, NULL, &err)); /* to be made anew */
    }
    beside_the_store(dir, "moved"); /* of that, nothing is here */
    ASSERT_REFUSED(get(&e, &late, PRIVATE, PULL_POLICY_ALWAYS), -ETIMEDOUT,
                   "is not pulled any more");
    agent_env_done(&e);
}

/* Its word is waited for, but not for long. */
TEST(access_of_who_is_late_has_a_deadline_of_its_own) {
    STORE_TEST_DIR(dir);
    uint64_t begin = now_usec();
    AgentEnv e;
    Caller a = { .late = true };

    agent_env_init(&e, dir, NULL);
    ASSERT_REFUSED(get(&e, &a, "r.example/hello-sleep:1", PULL_POLICY_IF_NOT_PRESENT), -ETIMEDOUT,
                   "r.example/hello-sleep:1 is not here in time (");
    ASSERT_TRUE(now_usec() - begin >= 10 * USEC_PER_SEC);
    while (puller_count(e.puller) > 0)
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
    agent_env_done(&e);
}

TEST(access_is_not_had_by_joining) {
    STORE_TEST_DIR(dir);
    AgentEnv e;
    Caller owner = { .password = "good" }, other = { .password = "good" }, thief = { 0 };

    agent_env_init(&e, dir, NULL);
    ask(&e, &owner, "r.example/slow-private:1", PULL_POLICY_IF_NOT_PRESENT);
    while (puller_count(e.puller) == 0)
        (void)sd_event_run(e.event, 10 * USEC_PER_MSEC);
    ask(&e, &thief, "r.example/slow-private:1", PULL_POLICY_IF_NOT_PRESENT);
    ask(&e, &other, "r.example/slow-private:1", PULL_POLICY_IF_NOT_PRESENT);
    agent_env_wait(&e, &thief.done, 1);
    ASSERT_REFUSED(&thief, -EKEYREJECTED, "who are you");
    ASSERT_EQ(owner.done, 0);
    ASSERT_TRUE(puller_ticket_pull(other.ticket) == puller_ticket_pull(owner.ticket));
    agent_env_wait(&e, &owner.done, 1);
    ASSERT_GIVEN(&owner);
    ASSERT_GIVEN(&other);
    agent_env_done(&e);
}

/* A subset takes a while to make: the tag means then what it was set to meanwhile. */
TEST(access_to_a_subset_leaves_a_tag_that_moved) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_(reference_freep) Reference *reference = NULL;
    _cleanup_(filter_freep) Filter *json = NULL;
    AccessName name = { .text = "r.example/model:1", .platform = "linux/amd64" };
    Digest old, new, found;
    Err err = { "" };

    ASSERT_OK(reference_parse(&reference, name.text, &err));
    ASSERT_OK(filter_parse(&json, "*.json", NULL, &err));
    name.reference = reference;
    name.filter = json;
    old = env_artifact(s, "old", (const char *const[][2]){ { "a.json", "a" }, { "b", "b" } }, 2);
    new = env_artifact(s, "new", (const char *const[][2]){ { "a.json", "c" }, { "b", "d" } }, 2);
    for (int moved = 0; moved < 3; moved++) {
        ASSERT_OK(store_set_reference(s, name.text, NULL, &old, &err));
        ASSERT_EQ(access_find(s, &name, &found, &err), ACCESS_WHOLE);
        if (moved == 1)
            ASSERT_OK(store_set_reference(s, name.text, NULL, &new, &err));
        if (moved == 2)
            ASSERT_OK(store_remove(s, name.text, NULL, NULL, NULL, &err));
        ASSERT_EQ(access_make_subset(s, &name, &found, &err), ACCESS_FOUND);
        ASSERT_EQ(access_find(s, &name, &found, &err), moved == 0   ? ACCESS_FOUND
                                                       : moved == 1 ? ACCESS_WHOLE
                                                                    : ACCESS_ABSENT);
        ASSERT_TRUE(moved != 1 || digest_equal(&found, &new));
        ASSERT_OK(store_set_reference(s, name.text, NULL, &new, &err));
    }
    env_check_invariants(s);
}

/* What came under another name gets that of the digest. */
TEST(access_to_a_subset_by_digest_names_it) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_(reference_freep) Reference *reference = NULL;
    _cleanup_(filter_freep) Filter *json = NULL;
    _cleanup_free_ char *text = NULL;
    AccessName name = { .platform = "linux/amd64" };
    Digest found, subset;
    Err err = { "" };

    found = env_artifact(s, "m", (const char *const[][2]){ { "a.json", "a" }, { "b", "b" } }, 2);
    text = xasprintf(ENV_ORIGIN "@%s", DIGEST_STR(&found));
    ASSERT_OK(reference_parse(&reference, text, &err));
    ASSERT_OK(filter_parse(&json, "*.json", NULL, &err));
    name.reference = reference;
    name.text = text;
    name.filter = json;
    ASSERT_EQ(access_take(s, &name, &subset, &err), ACCESS_FOUND);
    ASSERT_EQ(store_resolve(s, text, name.platform, json, &found, &err), 0);
    ASSERT_TRUE(digest_equal(&found, &subset));
}
