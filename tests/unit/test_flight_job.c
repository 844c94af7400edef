/* SPDX-License-Identifier: Apache-2.0 */
/* test_flight_job: what a worker is told. */
#include "agent/flight_job.h"
#include "tests/unit/test.h"

/* The worker's registry, and the connections that it finds for that. */
static unsigned connections_for(const char *reference_string) {
    static const char *const sets[] = { "registries.docker.io.connections=3",
                                        "registries.r.example.connections=2" };
    _cleanup_(config_freep) Config *config = NULL;
    _cleanup_(pull_options_unrefp) PullOptions *options = NULL;
    _cleanup_(reference_freep) Reference *reference = NULL;
    const ConfigSources sources = { .sets = sets, .n_sets = ELEMENTSOF(sets) };
    const Platform platform = { .os = "linux", .architecture = "amd64" };
    unsigned connections = 0;
    FlightJob job;
    Err err = { "" };

    ASSERT_OK(config_load(&config, &sources, &err));
    ASSERT_OK(pull_options_new(&options, config, &err));
    ASSERT_OK(reference_parse(&reference, reference_string, &err));
    flight_job_init(&job, &(FlightJobSources){
                              .options = options, .reference = reference, .platform = &platform });
    ASSERT_EQ(job.message.n_registries, 2);
    for (size_t i = 0; i < job.message.n_registries; i++)
        if (streq(job.message.registries[i]->host, job.message.registry))
            connections = job.message.registries[i]->connections;
    flight_job_done(&job);
    return connections;
}

TEST(what_is_set_for_a_registry_is_found_by_the_host_that_is_asked) {
    ASSERT_EQ(connections_for("r.example/x:1"), 2);
    ASSERT_EQ(connections_for("docker.io/library/x:1"), 3); /* which is registry-1.docker.io */
    ASSERT_EQ(connections_for("other.example/x:1"), 0);
}
