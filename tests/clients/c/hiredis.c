/* hiredis, the C library under many others: one thread, one connection for each of its activities, all of
 * it without retries, which the library has none of. See tests/clients/driver.rs for what it says
 * and hears. */

#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { STEPS = 5, KEYS = 2000, LARGE = 100000, TEXT = 400, TEXTS_MAX = 20, PATIENCE_S = 60 };

static char errors[TEXTS_MAX][TEXT], wrongs[TEXTS_MAX][TEXT];
static int errors_count, wrongs_count;

static void note(char texts[][TEXT], int *count, const char *form, va_list values) {
    if (*count == TEXTS_MAX)
        return;
    char *text = texts[(*count)++];
    vsnprintf(text, TEXT, form, values);
    fprintf(stderr, "%s\n", text);
    /* It becomes a string of JSON. */
    for (; *text; text++)
        if (*text == '"' || *text == '\\' || (unsigned char)*text < ' ')
            *text = '\'';
}

static void wrong(const char *form, ...) {
    va_list values;
    va_start(values, form);
    note(wrongs, &wrongs_count, form, values);
    va_end(values);
}

static void error(const char *form, ...) {
    va_list values;
    va_start(values, form);
    note(errors, &errors_count, form, values);
    va_end(values);
}

static const char *host;
static int port;

static redisContext *dial(void) {
    redisContext *link = redisConnect(host, port);
    struct timeval patience = {PATIENCE_S, 0};
    if (!link || link->err || redisSetTimeout(link, patience) != REDIS_OK) {
        fprintf(stderr, "no connection: %s\n", link ? link->errstr : "no memory");
        exit(1);
    }
    return link;
}

/* The next reply; NULL when it is an error, which is noted. */
static redisReply *hear(redisContext *link, const char *who) {
    void *reply = NULL;
    if (redisGetReply(link, &reply) != REDIS_OK) {
        error("%s: %s", who, link->errstr);
        return NULL;
    }
    redisReply *heard = reply;
    if (heard->type == REDIS_REPLY_ERROR) {
        error("%s: %s", who, heard->str);
        freeReplyObject(heard);
        return NULL;
    }
    return heard;
}

static redisReply *ask(redisContext *link, const char *who, const char *form, ...) {
    va_list values;
    va_start(values, form);
    int taken = redisvAppendCommand(link, form, values);
    va_end(values);
    if (taken != REDIS_OK) {
        error("%s: %s", who, link->errstr);
        return NULL;
    }
    return hear(link, who);
}

static void expect_integer(const char *who, redisReply *reply, long long expected) {
    if (reply && (reply->type != REDIS_REPLY_INTEGER || reply->integer != expected))
        wrong("%s: %lld instead of %lld", who, reply->integer, expected);
    if (reply)
        freeReplyObject(reply);
}

static void expect_text(const char *who, const redisReply *reply, const char *expected) {
    if (!reply || !reply->str || strcmp(reply->str, expected) != 0)
        wrong("%s: %s instead of %s", who, reply && reply->str ? reply->str : "nothing", expected);
}

/* Each activity does one step with its own connection; `number` counts its steps from 0. */

static void set_get(redisContext *link, long long number) {
    char value[64];
    snprintf(value, sizeof value, "value-%lld", number);
    redisReply *reply = ask(link, "set", "SET set:%d %s", (int)(number % KEYS), value);
    if (reply)
        freeReplyObject(reply);
    reply = ask(link, "get", "GET set:%d", (int)(number % KEYS));
    if (reply) {
        expect_text("get", reply, value);
        freeReplyObject(reply);
    }
}

static void counter(redisContext *link, long long number) {
    expect_integer("counter", ask(link, "counter", "INCR counter"), number + 1);
}

static void large_values(redisContext *link, long long number) {
    static char value[LARGE];
    memset(value, 'a' + number % 26, LARGE);
    redisReply *reply = ask(link, "large", "SET large %b", value, (size_t)LARGE);
    if (reply)
        freeReplyObject(reply);
    reply = ask(link, "large", "GET large");
    if (reply && (reply->len != LARGE || memcmp(reply->str, value, LARGE) != 0))
        wrong("large: another value of %zu bytes", (size_t)reply->len);
    if (reply)
        freeReplyObject(reply);
}

static void pipeline(redisContext *link, long long number) {
    for (int at = 0; at < 20; at++)
        redisAppendCommand(link, "INCR pipeline");
    for (int at = 0; at < 20; at++)
        expect_integer("pipeline", hear(link, "pipeline"), 20 * number + at + 1);
}

static void transaction(redisContext *link, long long number) {
    static const char *commands[] = {"MULTI", "INCR transaction:a", "INCR transaction:b", "EXEC"};
    for (int at = 0; at < 4; at++)
        redisAppendCommand(link, commands[at]);
    for (int at = 0; at < 3; at++) {
        redisReply *reply = hear(link, "transaction");
        if (reply) {
            expect_text("transaction", reply, at ? "QUEUED" : "OK");
            freeReplyObject(reply);
        }
    }
    redisReply *reply = hear(link, "exec");
    if (!reply)
        return;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
        wrong("exec: type %d", reply->type);
    else
        for (int at = 0; at < 2; at++)
            if (reply->element[at]->integer != number + 1)
                wrong("exec: %lld instead of %lld", reply->element[at]->integer, number + 1);
    freeReplyObject(reply);
}

static void script(redisContext *link, long long number) {
    static char digest[64];
    if (!digest[0]) {
        redisReply *reply = ask(link, "load", "SCRIPT LOAD %s", "return redis.call('INCR', KEYS[1])");
        if (!reply)
            return;
        snprintf(digest, sizeof digest, "%s", reply->str);
        freeReplyObject(reply);
    }
    expect_integer("evalsha", ask(link, "evalsha", "EVALSHA %s 1 script", digest), number + 1);
}

/* Another connection for what takes two. */
static redisContext *other;

static void blocking_list(redisContext *link, long long number) {
    /* It has waited since the step before: a switchover finds it waiting. */
    static int waits;
    if (waits) {
        redisReply *reply = ask(other, "push", "RPUSH queue %lld", number);
        if (reply)
            freeReplyObject(reply);
        reply = hear(link, "blpop");
        if (reply && (reply->elements != 2 || atoll(reply->element[1]->str) != number))
            wrong("blpop: not %lld", number);
        if (reply)
            freeReplyObject(reply);
    }
    int done = 0;
    redisAppendCommand(link, "BLPOP queue 0");
    while (!done && redisBufferWrite(link, &done) == REDIS_OK)
        ;
    waits = 1;
}

static void messages(redisContext *link, long long number) {
    static int listens;
    if (!listens) {
        redisReply *reply = ask(link, "subscribe", "SUBSCRIBE news");
        if (reply)
            freeReplyObject(reply);
        listens = 1;
    }
    expect_integer("publish", ask(other, "publish", "PUBLISH news %lld", number), 1);
    redisReply *reply = hear(link, "message");
    if (reply && (reply->elements != 3 || atoll(reply->element[2]->str) != number))
        wrong("message: not %lld", number);
    if (reply)
        freeReplyObject(reply);
}

typedef struct {
    const char *name;
    void (*step)(redisContext *, long long);
    redisContext *link;
    long long done;
} Activity;

static Activity activities[] = {
    {"set_get", set_get, NULL, 0},
    {"counter", counter, NULL, 0},
    {"large_values", large_values, NULL, 0},
    {"pipeline", pipeline, NULL, 0},
    {"script", script, NULL, 0},
    {"messages", messages, NULL, 0},
    {"blocking_list", blocking_list, NULL, 0},
    /* EXEC beside a blocked client that wakes up crashes Kvrocks before 2.12: not there. */
    {"transaction", transaction, NULL, 0},
};
static int activities_count = sizeof activities / sizeof *activities;

static void round_of_all(int rounds) {
    for (; rounds > 0 && !errors_count; rounds--)
        for (int at = 0; at < activities_count && !errors_count; at++) {
            Activity *one = &activities[at];
            one->step(one->link, one->done);
            one->done++;
        }
}

static void say(const char *text) {
    puts(text);
    fflush(stdout);
}

/* The line that the driver has sent, if there is one by now. */
static int driver_said(char *line, int room) {
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    if (poll(&input, 1, errors_count ? -1 : 0) <= 0)
        return 0;
    if (!fgets(line, room, stdin))
        exit(1);
    return 1;
}

static void list(const char *name, char texts[][TEXT], int count) {
    printf(", \"%s\": [", name);
    for (int at = 0; at < count; at++)
        printf("%s\"%s\"", at ? ", " : "", texts[at]);
    printf("]");
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    host = argv[1];
    port = atoi(argv[2]);
    if (strcmp(argv[3], "kvrocks") == 0)
        activities_count--;
    setvbuf(stdin, NULL, _IONBF, 0);
    other = dial();
    for (int at = 0; at < activities_count; at++)
        activities[at].link = dial();
    round_of_all(STEPS);
    say("ready");
    char line[64] = "";
    while (strncmp(line, "stop", 4) != 0) {
        round_of_all(1);
        if (driver_said(line, sizeof line) && strncmp(line, "mark", 4) == 0) {
            round_of_all(STEPS);
            say("marked");
        }
    }
    for (long long number = activities[0].done - 1;
         number >= 0 && number > activities[0].done - 1 - KEYS && !errors_count; number--) {
        char value[64];
        snprintf(value, sizeof value, "value-%lld", number);
        redisReply *reply = ask(other, "find", "GET set:%d", (int)(number % KEYS));
        expect_text("an acknowledged write", reply, value);
        if (reply)
            freeReplyObject(reply);
    }
    printf("{\"done\": {");
    for (int at = 0; at < activities_count; at++)
        printf("%s\"%s\": %lld", at ? ", " : "", activities[at].name, activities[at].done);
    printf("}");
    list("errors", errors, errors_count);
    list("wrong", wrongs, wrongs_count);
    say("}");
    /* It ends when its input does. */
    while (fgets(line, sizeof line, stdin))
        ;
    return 0;
}
