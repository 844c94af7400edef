/* SPDX-License-Identifier: Apache-2.0 */
/* test_features: the probe of what confines workers. */
#include "agent/features.h"
#include "tests/unit/agent_env.h"

typedef struct Probed {
    unsigned done;
    int r;
} Probed;

static void on_probed(void *arg, int r) {
    Probed *p = arg;

    p->done++;
    p->r = r;
}

TEST(features_of_a_worker) {
    STORE_TEST_DIR(dir);
    _cleanup_free_ char *missing = NULL;
    FeatureList list = { 0 };
    FeatureProbe *probe = NULL;
    Probed p = { 0 };
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    ASSERT_OK(feature_probe_new(&probe, &(FeatureProbeOptions){ e.event, e.store, e.pool, e.standby,
                                                                e.options, &list, on_probed, &p }));
    agent_env_wait(&e, &p.done, 1);
    ASSERT_OK(p.r);
    ASSERT_EQ(list.n, 2);
    missing = feature_list_missing(&list);
    ASSERT_STREQ(missing, "landlock (not in this?kernel)");
    probe = feature_probe_free(probe);
    feature_list_done(&list);
    agent_env_done(&e);
}

TEST(features_without_a_worker) {
    STORE_TEST_DIR(dir);
    FeatureList list = { 0 };
    FeatureProbe *probe = NULL;
    Standby *standby;
    Probed p = { 0 };
    AgentEnv e;

    agent_env_init(&e, dir, NULL);
    standby_new(&standby, e.event, "/nonexistent");
    ASSERT_ERR(feature_probe_new(&probe, &(FeatureProbeOptions){ e.event, e.store, e.pool, standby,
                                                                 e.options, &list, on_probed, &p }),
               -ENOENT);
    standby = standby_free(standby);
    ASSERT_EQ(p.done, 0);
    ASSERT_EQ(list.n, 1);
    ASSERT_STREQ(list.items[0].name, "worker");
    ASSERT_TRUE(!list.items[0].active);
    feature_list_done(&list);
    agent_env_done(&e);
}
