/* SPDX-License-Identifier: Apache-2.0 */
/* test_event_log: events are stored in order, and told to those who follow. */
#include "tests/unit/agent_env.h"

typedef struct Follower {
    unsigned n;
    uint64_t last;
    char texts[200];
} Follower;

static void on_event(void *arg, const StoreEvent *e) {
    Follower *f = arg;
    size_t used = strlen(f->texts);

    ASSERT_TRUE(e->id > f->last);
    f->last = e->id;
    f->n++;
    (void)snprintf(f->texts + used, sizeof(f->texts) - used, "%s,", e->text);
}

TEST(event_log_keeps_the_order) {
    STORE_TEST_DIR(dir);
    Follower a = { 0 }, b = { 0 };
    EventFollower *fa, *fb;
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    fa = event_log_follow(e.events, on_event, &a);
    fb = event_log_follow(e.events, on_event, &b);
    for (unsigned i = 0; i < 5; i++) {
        char text[8];
        StoreEvent event = { .type = (char *)"test.failed", .text = text };
        (void)snprintf(text, sizeof(text), "%u", i);
        event_log_add(e.events, &event);
    }
    agent_env_wait(&e, &a.n, 5);
    ASSERT_STREQ(a.texts, "0,1,2,3,4,");
    ASSERT_STREQ(b.texts, "0,1,2,3,4,");
    fb = event_follower_free(fb);
    event_log_add(e.events, &(StoreEvent){ .type = (char *)"test" });
    agent_env_wait(&e, &a.n, 6);
    ASSERT_EQ(b.n, 5);
    fa = event_follower_free(fa);
    ASSERT_TRUE(!fa && !fb);
    agent_env_done(&e);
}
