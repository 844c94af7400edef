/* SPDX-License-Identifier: Apache-2.0 */
/* http_internal: what http.c (the loop) and http_transfer.c (one transfer) share. */
#pragma once

#include "oci/http.h"

#include <curl/curl.h>

struct Http {
    sd_event *event;
    CURLM *multi;
    sd_event_source *timer; /* libcurl's timeout */
    sd_event_source *work;  /* does what had to wait because libcurl was running */
    Trust *trust;
    Err trust_err; /* why it cannot be read */
    char *user_agent;
    unsigned stall_seconds;
    bool has_proxy;   /* connections go to a proxy: its address says nothing of the host */
    unsigned in_curl; /* libcurl is running: it must not be called again */
    unsigned in_run;  /* http_run() is on the stack */
    bool dying;       /* http_free() was called meanwhile */
    HttpTransfer *transfers;
};

struct HttpTransfer {
    Http *http;
    HttpTransfer *next, *prev;
    CURL *easy;
    struct curl_slist *headers;
    char *form;
    HttpHandlers handlers;
    AddressKind may_reach, used;
    bool blocked;
    bool added; /* libcurl has it */
    bool paused, wants_resume;
    bool dead;      /* freed while libcurl was running: goes as soon as that has ended */
    bool finished;  /* libcurl has ended with `code` */
    bool finishing; /* on_done is running */
    CURLcode code;
    int r; /* what a handler ended the transfer with */
    char curl_text[CURL_ERROR_SIZE];
    unsigned status;
    bool head_done;
    char **lines; /* of the head */
    size_t n_lines, cap_lines, head_bytes;
};

/* Sets all options of libcurl.  Errors: -EIO. */
int transfer_setup(HttpTransfer *t, const HttpRequest *request, Err *err) _must_check_;
/* Frees it for good; libcurl does not have it any more. */
void transfer_destroy(HttpTransfer *t);
/* The result as errno with its sentence. */
int transfer_result(const HttpTransfer *t, Err *err) _must_check_;
