/* SPDX-License-Identifier: Apache-2.0 */
/* test_options: the command line of modelcached. */
#include "agent/options.h"
#include "tests/unit/test.h"

static int parse(Options *o, const char *const *args, Err *err) {
    char *argv[10] = { (char *)"modelcached" };
    int argc = 1;

    for (; args[argc - 1]; argc++)
        argv[argc] = (char *)args[argc - 1];
    return options_parse(o, argc, argv, err);
}

TEST(options_defaults) {
    Options o;
    Err err;

    ASSERT_OK(parse(&o, (const char *const[]){ NULL }, &err));
    ASSERT_EQ(o.action, OPTIONS_RUN);
    ASSERT_STREQ(o.sources.file, CONFIG_DEFAULT_FILE);
    ASSERT_TRUE(o.sources.file_may_be_absent);
    options_done(&o);
}

TEST(options_all) {
    Options o;
    Err err;

    ASSERT_OK(parse(&o,
                    (const char *const[]){ "--config", "/x", "--set=a=b", "--set", "c=d",
                                           "--check-config", NULL },
                    &err));
    ASSERT_EQ(o.action, OPTIONS_CHECK_CONFIG);
    ASSERT_STREQ(o.sources.file, "/x");
    ASSERT_TRUE(!o.sources.file_may_be_absent);
    ASSERT_EQ(o.sources.n_sets, 2);
    ASSERT_STREQ(o.sources.sets[1], "c=d");
    options_done(&o);
    ASSERT_OK(parse(&o, (const char *const[]){ "--print-docs", "man", NULL }, &err));
    ASSERT_EQ(o.action, OPTIONS_PRINT_MAN);
    options_done(&o);
}

static const struct {
    const char *args[3];
    const char *sentence;
} mistakes[] = {
    { { "--what", NULL }, "--what is not an option; see modelcached --help" },
    { { "--set", NULL }, "--set needs a value" },
    { { "run", NULL }, "\"run\" is too much" },
    { { "-x", NULL }, "-x is not an option" },
    { { "--print-docs", "pdf", NULL }, "--print-docs: \"pdf\" is unknown, allowed: markdown, man" },
};

TEST(options_mistakes) {
    for (size_t i = 0; i < ELEMENTSOF(mistakes); i++) {
        Options o;
        Err err = { "" };
        ASSERT_ERR(parse(&o, mistakes[i].args, &err), -EINVAL);
        ASSERT_STRSTR(err.text, mistakes[i].sentence);
    }
}

TEST(options_help_teaches) {
    _cleanup_free_ char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    ASSERT_TRUE(f);
    options_write_help(f);
    (void)fclose(f);
    ASSERT_STRSTR(text, "--set KEY=VALUE");
    ASSERT_STRSTR(text, "pull.memory (default 128MiB)");
    ASSERT_STRSTR(text, "Exit codes:");
}
