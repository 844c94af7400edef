/* SPDX-License-Identifier: Apache-2.0 */
/* test_health: the reasons, in the order in which they count, with a real CSI server. */
#include "agent/health.h"
#include "tests/unit/csi_env.h"

static int serve(Env *env, CsiServer **ret, const char *registration_dir, Err *err) {
    _cleanup_free_ char *socket = xasprintf("%s/csi.sock", tmpdir_path(env->dir));

    return csi_server_new(ret,
                          &(CsiServerOptions){
                              .event = env->event,
                              .backend = &env->backend,
                              .volumes = env->volumes,
                              .driver = "csi.test",
                              .version = "1",
                              .socket = socket,
                              .kubelet_dirs = (const char *[]){ env->kubelet, NULL },
                              .registration_dir = registration_dir,
                          },
                          err);
}

static void says(const Health *h, bool ready, const char *want) {
    char reason[HEALTH_REASON_MAX];

    ASSERT_EQ(health_is_ready(h, reason), ready);
    ASSERT_STREQ(reason, want);
}

TEST(health_has_its_reasons) {
    _cleanup_(env_freep) Env *env = env_new();
    Health h = { .metrics_address = "" };
    CsiServer *csi = NULL;
    const char *detail;
    Err err;

    says(&h, false, "the daemon is starting");
    ASSERT_EQ(health_registration(&h, &detail), REGISTRATION_WAITING);
    ASSERT_OK(serve(env, &csi, "", &err));
    h.csi = csi;
    says(&h, true, "");
    ASSERT_EQ(health_registration(&h, &detail), REGISTRATION_OFF);
    ASSERT_OK(unlinkat(tmpdir_fd(env->dir), "csi.sock", 0));
    says(&h, false, "the CSI socket is not there; it is made as soon as the kubelet's folder is");
    h.stopping = true;
    says(&h, false, "the daemon is ending");
    (void)csi_server_free(csi);
    csi = NULL;
    ASSERT_OK(serve(env, &csi, tmpdir_path(env->dir), &err));
    h = (Health){ .csi = csi, .metrics_address = "" };
    says(&h, false,
         "waiting for the kubelet to register the driver: the kubelet has not asked yet");
    (void)csi_server_free(csi);
}
