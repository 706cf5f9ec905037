/* Finds where a reply of Redis ends, without making anything of it.
 *
 * RESP2 and RESP3, "Redis serialization protocol specification". Only what most replies are made of is known here:
 * strings, integers, nulls and arrays of these, written as Redis writes them. Anything else, malformed replies among
 * it, is hiredis' to parse or to refuse. Nothing here allocates or touches Python.
 */
#ifndef FASTSOCK_RESP_H
#define FASTSOCK_RESP_H

#include <Python.h>
#include <string.h>

#define FS_REPLY_CUT 0
#define FS_REPLY_UNUSUAL (-1)
#define FS_REPLY_DEPTH 6
#define FS_REPLY_ELEMENTS 1000000 /* more would not fit into what is received at once */

/* Reads the number that ends a line at `*at`, and moves `*at` behind the line. Returns 1, or one of the above. */
static int fs_reply_number(const char **at, const char *end, long long *number)
{
    const char *here = *at, *digits;
    int negative = here < end && *here == '-';
    long long value = 0;
    here += negative;
    digits = here;
    while (here < end && *here >= '0' && *here <= '9' && here - digits < 18)
        value = value * 10 + (*here++ - '0');
    if (here == end || (*here == '\r' && here + 1 == end))
        return FS_REPLY_CUT;
    if (here == digits || *here != '\r' || here[1] != '\n' || (*digits == '0' && (here - digits > 1 || negative)))
        return FS_REPLY_UNUSUAL;
    *number = negative ? -value : value;
    *at = here + 2;
    return 1;
}

/* Returns how many bytes the reply takes that begins at `start`, or one of the above. `bulk_max`: longest string. */
static Py_ssize_t fs_reply_size(const char *start, const char *end, int depth, long long bulk_max)
{
    const char *at = start + 1, *line;
    long long number = 0;
    Py_ssize_t size;
    int found;
    if (start == end)
        return FS_REPLY_CUT;
    switch (*start) {
    case '+':
        line = memchr(at, '\r', end - at);
        if (line == NULL || line + 1 == end)
            return FS_REPLY_CUT;
        if (line[1] != '\n' || memchr(at, '\n', line - at) != NULL)
            return FS_REPLY_UNUSUAL;
        return line + 2 - start;
    case '_':
        if (end - at < 2)
            return FS_REPLY_CUT;
        return at[0] == '\r' && at[1] == '\n' ? 3 : FS_REPLY_UNUSUAL;
    case ':':
        found = fs_reply_number(&at, end, &number);
        return found == 1 ? at - start : found;
    case '$':
    case '*':
        found = fs_reply_number(&at, end, &number);
        if (found != 1)
            return found;
        if (number < 0)
            return number == -1 ? at - start : FS_REPLY_UNUSUAL;
        if (*start == '$') {
            if (number > bulk_max)
                return FS_REPLY_UNUSUAL;
            if (end - at < number + 2)
                return FS_REPLY_CUT;
            at += number;
            return at[0] == '\r' && at[1] == '\n' ? at + 2 - start : FS_REPLY_UNUSUAL;
        }
        if (depth == 0 || number > FS_REPLY_ELEMENTS)
            return FS_REPLY_UNUSUAL;
        while (number-- > 0) {
            size = fs_reply_size(at, end, depth - 1, bulk_max);
            if (size <= 0)
                return size;
            at += size;
        }
        return at - start;
    default:
        return FS_REPLY_UNUSUAL;
    }
}

#endif
