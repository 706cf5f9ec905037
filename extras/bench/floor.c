/* What a client in C on hiredis needs for the cases of extras/bench/cases.py.
 *
 * usage: floor host port db pipelined list-items script-sha script-argument
 * Each line of its input is "command key bytes operations". It answers with a line of JSON: what the operations took,
 * {"wall_s": ..., "cpu_s": ...}, or, for 0 operations, the reply of one, texts in hexadecimal, OK as true. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#if defined(__has_include)
#if __has_include(<hiredis/hiredis.h>)
#include <hiredis/hiredis.h>
#else
#include <hiredis.h>
#endif
#else
#include <hiredis/hiredis.h>
#endif

#define MOST_ARGUMENTS 8

static redisContext *redis;
static int pipelined;

typedef struct {
    int count;
    const char *values[MOST_ARGUMENTS];
    size_t lengths[MOST_ARGUMENTS];
} Command;

static void die(const char *why) {
    fprintf(stderr, "%s\n", why);
    exit(1);
}

static void add(Command *command, const char *value, size_t length) {
    command->values[command->count] = value;
    command->lengths[command->count++] = length;
}

static void add_text(Command *command, const char *text) { add(command, text, strlen(text)); }

static redisReply *checked(void *reply) {
    if (reply == NULL) die(redis->errstr);
    if (((redisReply *)reply)->type == REDIS_REPLY_ERROR) die(((redisReply *)reply)->str);
    return reply;
}

static redisReply *ask(Command *command) {
    return checked(redisCommandArgv(redis, command->count, command->values, command->lengths));
}

/* Sends all commands, then reads all replies; shows them, or drops them. */
static void show(const redisReply *reply);

static void ask_pipelined(Command *commands, int shown) {
    for (int n = 0; n < pipelined; n++)
        redisAppendCommandArgv(redis, commands[n].count, commands[n].values, commands[n].lengths);
    if (shown) putchar('[');
    for (int n = 0; n < pipelined; n++) {
        void *reply = NULL;
        if (redisGetReply(redis, &reply) != REDIS_OK) die(redis->errstr);
        checked(reply);
        if (shown && n) putchar(',');
        if (shown) show(reply);
        freeReplyObject(reply);
    }
    if (shown) putchar(']');
}

static void show(const redisReply *reply) {
    if (reply->type == REDIS_REPLY_INTEGER) {
        printf("%lld", reply->integer);
    } else if (reply->type == REDIS_REPLY_STATUS) {
        printf(strcmp(reply->str, "OK") == 0 ? "true" : "false");
    } else if (reply->type == REDIS_REPLY_STRING) {
        putchar('"');
        for (size_t n = 0; n < reply->len; n++) printf("%02x", (unsigned char)reply->str[n]);
        putchar('"');
    } else if (reply->type == REDIS_REPLY_ARRAY) {
        putchar('[');
        for (size_t n = 0; n < reply->elements; n++) {
            if (n) putchar(',');
            show(reply->element[n]);
        }
        putchar(']');
    } else {
        printf("null");
    }
}

static double wall_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void connect_to(const char *host, int port, const char *db) {
    redis = redisConnect(host, port);
    if (redis == NULL) die("out of memory");
    if (redis->err) die(redis->errstr);
    freeReplyObject(checked(redisCommand(redis, "SELECT %s", db)));
}

int main(int argc, char **argv) {
    char name[32], key[256], (*keys)[300];
    size_t size;
    long operations;
    if (argc != 8) die("usage: floor host port db pipelined list-items script-sha script-argument");
    connect_to(argv[1], atoi(argv[2]), argv[3]);
    pipelined = atoi(argv[4]);
    char last[32];
    snprintf(last, sizeof last, "%d", atoi(argv[5]) - 1);
    keys = calloc((size_t)pipelined, sizeof *keys);
    Command *commands = calloc((size_t)pipelined, sizeof *commands);
    if (keys == NULL || commands == NULL) die("out of memory");

    while (scanf("%31s %255s %zu %ld", name, key, &size, &operations) == 4) {
        char *value = malloc(size + 1);
        if (value == NULL) die("out of memory");
        for (size_t n = 0; n < size; n++) value[n] = (char)(97 + n % 26);
        int is_pipeline = strcmp(name, "pipeline") == 0;
        for (int n = 0; n < pipelined; n++) {
            commands[n].count = 0;
            snprintf(keys[n], sizeof keys[n], "%s:%d", key, n);
            add_text(&commands[n], "SET");
            add_text(&commands[n], keys[n]);
            add(&commands[n], value, size);
        }
        Command one = {0};
        if (strcmp(name, "get") == 0) {
            add_text(&one, "GET");
            add_text(&one, key);
        } else if (strcmp(name, "set") == 0) {
            add_text(&one, "SET");
            add_text(&one, key);
            add(&one, value, size);
        } else if (strcmp(name, "lrange") == 0) {
            add_text(&one, "LRANGE");
            add_text(&one, key);
            add_text(&one, "0");
            add_text(&one, last);
        } else if (strcmp(name, "evalsha") == 0) {
            add_text(&one, "EVALSHA");
            add_text(&one, argv[6]);
            add_text(&one, "1");
            add_text(&one, key);
            add_text(&one, argv[7]);
        } else if (!is_pipeline) {
            die("unknown command");
        }

        if (operations == 0) {
            if (is_pipeline) {
                ask_pipelined(commands, 1);
            } else {
                redisReply *reply = ask(&one);
                show(reply);
                freeReplyObject(reply);
            }
            putchar('\n');
        } else {
            double cpu = cpu_s(), wall = wall_s();
            for (long n = 0; n < operations; n++) {
                if (is_pipeline)
                    ask_pipelined(commands, 0);
                else
                    freeReplyObject(ask(&one));
            }
            wall = wall_s() - wall;
            printf("{\"wall_s\": %.9f, \"cpu_s\": %.9f}\n", wall, cpu_s() - cpu);
        }
        fflush(stdout);
        free(value);
    }
    redisFree(redis);
    free(commands);
    free(keys);
    return 0;
}
