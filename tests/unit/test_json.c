/* SPDX-License-Identifier: Apache-2.0 */
/* test_json: what is refused, and members with and without their types. */
#include "base/json.h"

#include "base/limits.h"
#include "tests/unit/test.h"

TEST(refuses_with_a_sentence_of_its_own) {
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        { "", "a syntax error" },
        { "{", "it ends early" },
        { "{\"a\":1,\"a\":2}", "a name appears twice" },
        { "{} {}", "bytes follow" },
        { "[1] x", "bytes follow" },
        { "[\"\xff\"]", "not UTF-8" },
        { "[\"\\u0000\"]", "a string holds a NUL" },
        { "[18446744073709551615]", "a number is too large" },
        { "{'a':1}", "a syntax error" },
        { "\"x\"", "a syntax error" },
        { "[secret]", "a syntax error" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        json_t *value = NULL;
        Err err = { 0 };
        ASSERT_ERR(json_parse(cases[i].text, strlen(cases[i].text), "the manifest", &value, &err),
                   -EBADMSG);
        ASSERT_STRSTR(err.text, "the manifest is not valid JSON");
        ASSERT_TRUE(!strstr(err.text, "secret"));
        if (i != 0) /* which error an empty document is differs between versions of jansson */
            ASSERT_STRSTR(err.text, cases[i].sentence);
        ASSERT_TRUE(value == NULL);
    }
}

static void nested(char *to, size_t depth) {
    memset(to, '[', depth);
    memset(to + depth, ']', depth);
}

TEST(depth_is_limited_outside_of_strings) {
    static const char text[] =
        "[\"\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"]";
    _cleanup_json_ json_t *deepest = NULL, *strings = NULL, *flat = NULL;
    _cleanup_free_ char *many = xcalloc(1000, 1);
    char deep[2 * LIMIT_JSON_DEPTH + 2];
    json_t *value = NULL;
    Err err = { 0 };

    nested(deep, LIMIT_JSON_DEPTH);
    ASSERT_OK(json_parse(deep, 2 * LIMIT_JSON_DEPTH, "x", &deepest, &err));
    nested(deep, LIMIT_JSON_DEPTH + 1);
    ASSERT_ERR(json_parse(deep, sizeof(deep), "x", &value, &err), -EBADMSG);
    ASSERT_STRSTR(err.text, "deeper than 64");
    ASSERT_OK(json_parse(text, sizeof(text) - 1, "x", &strings, &err));
    for (size_t i = 0; i < 300; i++)
        memcpy(many + 3 * i, "[],", 3);
    many[0] = '['; /* "[]," … becomes "[[],[],…[]]" */
    memmove(many + 1, many + 3, 894);
    many[894] = ']';
    ASSERT_OK(json_parse(many, 895, "x", &flat, &err));
}

TEST(members) {
    static const char text[] =
        "{\"s\":\"x\",\"n\":3,\"o\":{\"k\":1},\"a\":[1,2],\"z\":null,\"neg\":-1,\"r\":1.5}";
    _cleanup_json_ json_t *v = NULL;
    const char *s;
    uint64_t n;
    json_t *child;
    Err err = { 0 };

    ASSERT_OK(json_parse(text, sizeof(text) - 1, "x", &v, &err));
    ASSERT_OK(json_get_string(v, "s", &s, &err));
    ASSERT_STREQ(s, "x");
    ASSERT_OK(json_get_u64(v, "n", 9, &n, &err));
    ASSERT_EQ(n, 3);
    ASSERT_OK(json_get_object(v, "o", &child, &err));
    ASSERT_EQ(json_object_size(child), 1);
    ASSERT_OK(json_get_array(v, "a", &child, &err));
    ASSERT_EQ(json_array_size(child), 2);
    ASSERT_ERR(json_get_string(v, "n", &s, &err), -EBADMSG);
    ASSERT_STREQ(err.text, "\"n\" is not a string");
    ASSERT_ERR(json_get_u64(v, "s", 0, &n, &err), -EBADMSG);
    ASSERT_ERR(json_get_u64(v, "neg", 0, &n, &err), -EBADMSG);
    ASSERT_ERR(json_get_u64(v, "r", 0, &n, &err), -EBADMSG);
    ASSERT_ERR(json_get_object(v, "a", &child, &err), -EBADMSG);
    ASSERT_ERR(json_get_array(v, "o", &child, &err), -EBADMSG);
}

TEST(absent_and_null_members_are_the_same) {
    _cleanup_json_ json_t *v = json_pack("{s:n}", "z"), *array = json_array();
    const json_t *objects[] = { v, NULL };
    Err err = { 0 };
    json_t *child;
    const char *s;
    uint64_t n;

    for (size_t i = 0; i < ELEMENTSOF(objects); i++) {
        ASSERT_OK(json_get_string(objects[i], "z", &s, &err));
        ASSERT_TRUE(s == NULL);
        ASSERT_OK(json_get_u64(objects[i], "absent", 9, &n, &err));
        ASSERT_EQ(n, 9);
        ASSERT_OK(json_get_object(objects[i], "z", &child, &err));
        ASSERT_TRUE(child == NULL);
        ASSERT_OK(json_get_array(objects[i], "absent", &child, &err));
        ASSERT_TRUE(child == NULL);
    }
    ASSERT_ERR(json_get_string(array, "s", &s, &err), -EBADMSG);
    ASSERT_ERR(json_get_u64(array, "s", 0, &n, &err), -EBADMSG);
    ASSERT_ERR(json_get_object(array, "s", &child, &err), -EBADMSG);
    ASSERT_ERR(json_get_array(array, "s", &child, &err), -EBADMSG);
}
