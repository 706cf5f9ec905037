/* Decodes JSON text (RFC 8259) straight from UTF-8 bytes to Python objects, for what json.dumps usually writes.
 *
 * The reference is CPython's Modules/_json.c with the arguments of json.JSONDecoder(): what is decoded here is equal,
 * in value, type and order, to what that gives for the same bytes. Whatever is malformed, or nests deeper than
 * FS_JSON_DEPTH, is declined; the caller then asks the json module, so that errors and limits are Python's own.
 *
 * The bytes are those of a bytes object, so that a NUL stands after the last one; no JSON text goes on at a NUL, and
 * so nothing is compared with the end but reads of several bytes at once. Every function that returns an object
 * returns a new reference, or NULL: with an exception set where Python failed (out of memory, invalid UTF-8, an
 * integer of too many digits), with none where the text is declined. All of it needs the GIL.
 */
#ifndef FASTSOCK_JSON_DECODE_H
#define FASTSOCK_JSON_DECODE_H

#include <Python.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Arrays and objects in one another. Bounds the C stack; Python's own limit is higher. */
#define FS_JSON_DEPTH 100

/* A string of up to so many bytes that occurs again, as names do, is found in one of 2**BITS places, not made anew. */
#define FS_JSON_SHARED_BYTES 64
#define FS_JSON_SHARED_BITS 9

typedef struct {
    const char *next; /* the byte to look at */
    const char *end;  /* the NUL after the last byte */
    int depth;
    Py_UCS4 *scratch; /* a string with escapes while it is put together; PyMem_Free */
    size_t scratch_size;
    PyObject *shared[1 << FS_JSON_SHARED_BITS]; /* the last ASCII string of each fs_json_place, or NULL */
} fs_json;

static PyObject *fs_json_value(fs_json *json);

static const char *fs_json_skip_space(const char *at)
{
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
        at++;
    return at;
}

#define FS_JSON_EACH(byte) ((uint64_t)(byte) * 0x0101010101010101u)

/* Returns the first byte from `at` on that is a quote, a backslash, a control character or, with `ascii`, none of
 * ASCII. The NUL at the end is a control character. */
static inline const char *fs_json_scan(const char *at, const char *end, int ascii)
{
    while (end - at >= 8) {
        uint64_t bytes, quotes, backslashes, hits;
        memcpy(&bytes, at, 8);
        /* "x - 1 & ~x" has the high bit of each byte that is 0. A borrow can only put more after the first one. */
        quotes = bytes ^ FS_JSON_EACH('"');
        backslashes = bytes ^ FS_JSON_EACH('\\');
        hits = ((quotes - FS_JSON_EACH(1)) & ~quotes) | ((backslashes - FS_JSON_EACH(1)) & ~backslashes)
             | ((bytes - FS_JSON_EACH(0x20)) & ~bytes);
        if (ascii)
            hits |= bytes;
        hits &= FS_JSON_EACH(0x80);
        if (hits) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            return at + (__builtin_ctzll(hits) >> 3);
#else
            break;
#endif
        }
        at += 8;
    }
    while ((unsigned char)*at >= 0x20 && *at != '"' && *at != '\\' && !(ascii && (*at & 0x80)))
        at++;
    return at;
}

/* Returns where in `shared` a string of 1 to FS_JSON_SHARED_BYTES bytes belongs: a hash of its length and ends. */
static size_t fs_json_place(const char *text, size_t size)
{
    uint64_t first = 0, last = 0, hash;
    if (size >= 8) {
        memcpy(&first, text, 8);
        memcpy(&last, text + size - 8, 8);
    } else if (size >= 4) {
        uint32_t half;
        memcpy(&half, text, 4);
        first = half;
        memcpy(&half, text + size - 4, 4);
        last = half;
    } else {
        first = (unsigned char)text[0] | (uint64_t)(unsigned char)text[size / 2] << 8;
        last = (unsigned char)text[size - 1];
    }
    hash = (first ^ size) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ (hash >> 32) ^ last) * 0x9E3779B97F4A7C15u;
    return (size_t)(hash >> (64 - FS_JSON_SHARED_BITS));
}

static PyObject *fs_json_ascii(fs_json *json, const char *text, size_t size)
{
    PyObject *string, **place = NULL;
    if (size < 2)
        return PyUnicode_DecodeLatin1(text, (Py_ssize_t)size, NULL); /* Python has one object for each of these */
    if (size <= FS_JSON_SHARED_BYTES) {
        place = &json->shared[fs_json_place(text, size)];
        string = *place;
        if (string != NULL && (size_t)PyUnicode_GET_LENGTH(string) == size
            && memcmp(PyUnicode_1BYTE_DATA(string), text, size) == 0) {
            Py_INCREF(string);
            return string;
        }
    }
    string = PyUnicode_New((Py_ssize_t)size, 127);
    if (string == NULL)
        return NULL;
    memcpy(PyUnicode_1BYTE_DATA(string), text, size);
    if (place != NULL) {
        Py_INCREF(string);
        Py_XDECREF(*place);
        *place = string;
    }
    return string;
}

/* Reads four hexadecimal digits into `*code`, or returns 0. */
static int fs_json_hex4(const char *at, Py_UCS4 *code)
{
    int i;
    *code = 0;
    for (i = 0; i < 4; i++) {
        char c = at[i];
        if (c >= '0' && c <= '9')
            *code = *code << 4 | (Py_UCS4)(c - '0');
        else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
            *code = *code << 4 | (Py_UCS4)((c & 7) + 9);
        else
            return 0; /* the NUL at the end, too: nothing behind it is read */
    }
    return 1;
}

/* Reads the escape whose backslash is at `at` into `*code` and returns what follows it, or NULL. */
static const char *fs_json_escape(const char *at, Py_UCS4 *code)
{
    Py_UCS4 low;
    switch (at[1]) {
    case '"': case '\\': case '/': *code = (Py_UCS4)at[1]; return at + 2;
    case 'b': *code = '\b'; return at + 2;
    case 'f': *code = '\f'; return at + 2;
    case 'n': *code = '\n'; return at + 2;
    case 'r': *code = '\r'; return at + 2;
    case 't': *code = '\t'; return at + 2;
    case 'u': break;
    default: return NULL;
    }
    if (!fs_json_hex4(at + 2, code))
        return NULL;
    at += 6;
    if (Py_UNICODE_IS_HIGH_SURROGATE(*code) && at[0] == '\\' && at[1] == 'u') {
        if (!fs_json_hex4(at + 2, &low))
            return NULL;
        if (Py_UNICODE_IS_LOW_SURROGATE(low)) {
            *code = Py_UNICODE_JOIN_SURROGATES(*code, low);
            at += 6;
        }
    }
    return at;
}

/* Makes room in `scratch` for `more` characters after `used`. Returns 0 with MemoryError set. */
static int fs_json_reserve(fs_json *json, size_t used, size_t more)
{
    Py_UCS4 *scratch;
    size_t size = used + more;
    if (size <= json->scratch_size)
        return 1;
    size += size / 2 + 64;
    scratch = NULL;
    if (size <= (size_t)PY_SSIZE_T_MAX / sizeof(Py_UCS4))
        scratch = PyMem_Realloc(json->scratch, size * sizeof(Py_UCS4));
    if (scratch == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    json->scratch = scratch;
    json->scratch_size = size;
    return 1;
}

/* Decodes a string that has a byte other than plain ASCII at `at`. */
static PyObject *fs_json_mixed_string(fs_json *json, const char *at)
{
    const char *run = json->next; /* what is not in scratch yet, up to `at` */
    size_t used = 0;
    for (;;) {
        Py_UCS4 code;
        const char *high = at;
        size_t size;
        if (*at & 0x80)
            at = fs_json_scan(at, json->end, 0);
        if (*at != '"' && *at != '\\')
            return NULL;
        size = (size_t)(at - run);
        if (*at == '"' && used == 0 && run == json->next) {
            json->next = at + 1;
            return PyUnicode_DecodeUTF8(run, (Py_ssize_t)size, "strict");
        }
        if (!fs_json_reserve(json, used, size + 1))
            return NULL;
        if (at == high) { /* ASCII */
            while (run < at)
                json->scratch[used++] = (unsigned char)*run++;
        } else {
            PyObject *part = PyUnicode_DecodeUTF8(run, (Py_ssize_t)size, "strict");
            if (part == NULL)
                return NULL;
            if (PyUnicode_AsUCS4(part, json->scratch + used, (Py_ssize_t)size, 0) == NULL) {
                Py_DECREF(part);
                return NULL;
            }
            used += (size_t)PyUnicode_GET_LENGTH(part);
            Py_DECREF(part);
        }
        if (*at == '"') {
            json->next = at + 1;
            return PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, json->scratch, (Py_ssize_t)used);
        }
        do {
            at = fs_json_escape(at, &code);
            if (at == NULL || !fs_json_reserve(json, used, 1))
                return NULL;
            json->scratch[used++] = code;
        } while (*at == '\\');
        run = at;
        at = fs_json_scan(at, json->end, 1);
    }
}

/* Decodes a string whose opening quote has been passed. */
static PyObject *fs_json_string(fs_json *json)
{
    const char *text = json->next;
    const char *at = fs_json_scan(text, json->end, 1);
    if (*at != '"')
        return fs_json_mixed_string(json, at);
    json->next = at + 1;
    return fs_json_ascii(json, text, (size_t)(at - text));
}

/* Computes digits * 10**exponent, correctly rounded, where that takes no more than exact arithmetic; else returns 0. */
static int fs_json_exact(uint64_t digits, int exponent, double *value)
{
#if FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 1 /* doubles are computed as doubles; else they are rounded twice */
    /* Both operands are exact, so that one rounding is all: W. D. Clinger, How to read floating point numbers
     * accurately, 1990. */
    static const double tens[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (digits <= (uint64_t)1 << 53 && exponent >= -22 && exponent <= 22) {
        *value = exponent < 0 ? (double)digits / tens[-exponent] : (double)digits * tens[exponent];
        return 1;
    }
#if defined(__SIZEOF_INT128__)
    static const uint64_t fives[] = {
        1u, 5u, 25u, 125u, 625u, 3125u, 15625u, 78125u, 390625u, 1953125u, 9765625u, 48828125u, 244140625u,
        1220703125u, 6103515625u, 30517578125u, 152587890625u, 762939453125u, 3814697265625u, 19073486328125u,
        95367431640625u, 476837158203125u, 2384185791015625u, 11920928955078125u, 59604644775390625u,
        298023223876953125u, 1490116119384765625u, 7450580596923828125u
    };
    /* json.dumps writes up to 17 digits. 10**n is 5**n * 2**n, and 5**27 < 2**63: one division of integers gives at
     * least 63 bits of the quotient, and its remainder tells on which side of them the true value is. */
    if (digits != 0 && exponent < 0 && exponent >= -27) {
        int digits_shift = __builtin_clzll(digits), divisor_shift = __builtin_clzll(fives[-exponent]);
        unsigned __int128 dividend = (unsigned __int128)(digits << digits_shift) << 63;
        uint64_t divisor = fives[-exponent] << divisor_shift;
        uint64_t quotient = (uint64_t)(dividend / divisor); /* the dividend's upper half is less than the divisor */
        quotient |= (uint64_t)dividend != quotient * divisor; /* below the bits that a double keeps: breaks ties */
        *value = ldexp((double)quotient, divisor_shift - digits_shift + exponent - 63);
        return 1;
    }
#endif
#endif
    (void)digits; (void)exponent; (void)value;
    return 0;
}

static PyObject *fs_json_slow_float(const char *text, const char *end)
{
    char *stopped;
    double value = PyOS_string_to_double(text, &stopped, NULL);
    if (value == -1.0 && PyErr_Occurred())
        return NULL;
    return stopped == end ? PyFloat_FromDouble(value) : NULL;
}

#define FS_JSON_IS_DIGIT(c) ((c) >= '0' && (c) <= '9')

static PyObject *fs_json_number(fs_json *json)
{
    const char *text = json->next, *first, *at;
    uint64_t digits = 0;
    int counted, exponent = 0; /* counted: of digits, without zeros in front */
    int negative = *text == '-', whole = 1;
    double value;

    at = first = text + negative;
    if (!FS_JSON_IS_DIGIT(*at))
        return NULL;
    if (*at == '0')
        first = ++at;
    else
        for (; FS_JSON_IS_DIGIT(*at); at++)
            digits = digits * 10 + (uint64_t)(*at - '0'); /* without meaning after 19, and not used then */
    counted = at - first > 19 ? 20 : (int)(at - first);
    if (*at == '.' && FS_JSON_IS_DIGIT(at[1])) {
        const char *point = at++;
        whole = 0;
        if (counted == 0)
            while (*at == '0')
                at++;
        first = at;
        for (; FS_JSON_IS_DIGIT(*at); at++)
            digits = digits * 10 + (uint64_t)(*at - '0');
        if (at - point > 1000) {
            counted = 20; /* left to Python: the power below is cut, and may not cancel this */
        } else {
            counted += (int)(at - first);
            exponent = (int)(point + 1 - at);
        }
    }
    if (*at == 'e' || *at == 'E') {
        const char *power = at + 1;
        int sign = *power == '-' ? -1 : 1, given = 0;
        if (*power == '-' || *power == '+')
            power++;
        if (FS_JSON_IS_DIGIT(*power)) {
            whole = 0;
            for (; FS_JSON_IS_DIGIT(*power); power++)
                if (given < 10000)
                    given = given * 10 + (*power - '0');
            exponent += sign * given;
            at = power;
        }
    }
    json->next = at;
    if (whole && counted <= 18)
        return PyLong_FromLongLong(negative ? -(long long)digits : (long long)digits);
    if (whole) {
        PyObject *integer, *string = PyUnicode_DecodeASCII(text, at - text, NULL);
        if (string == NULL)
            return NULL;
        integer = PyLong_FromUnicodeObject(string, 10);
        Py_DECREF(string);
        return integer;
    }
    if (counted <= 19 && fs_json_exact(digits, exponent, &value))
        return PyFloat_FromDouble(negative ? -value : value);
    return fs_json_slow_float(text, at);
}

/* Decodes an array whose opening bracket has been passed. */
static PyObject *fs_json_array(fs_json *json)
{
    PyObject *array;
    if (++json->depth > FS_JSON_DEPTH || (array = PyList_New(0)) == NULL)
        return NULL;
    json->next = fs_json_skip_space(json->next);
    if (*json->next != ']') {
        for (;;) {
            int failed;
            PyObject *value = fs_json_value(json);
            if (value == NULL)
                goto fail;
            failed = PyList_Append(array, value);
            Py_DECREF(value);
            if (failed)
                goto fail;
            json->next = fs_json_skip_space(json->next);
            if (*json->next != ',')
                break;
            json->next = fs_json_skip_space(json->next + 1);
        }
        if (*json->next != ']')
            goto fail;
    }
    json->next++;
    json->depth--;
    return array;
fail:
    Py_DECREF(array);
    return NULL;
}

/* Decodes an object whose opening brace has been passed. */
static PyObject *fs_json_object(fs_json *json)
{
    PyObject *object;
    if (++json->depth > FS_JSON_DEPTH || (object = PyDict_New()) == NULL)
        return NULL;
    json->next = fs_json_skip_space(json->next);
    if (*json->next != '}') {
        for (;;) {
            int failed;
            PyObject *name, *value = NULL;
            if (*json->next != '"')
                goto fail;
            json->next++;
            name = fs_json_string(json);
            if (name == NULL)
                goto fail;
            json->next = fs_json_skip_space(json->next);
            if (*json->next == ':') {
                json->next = fs_json_skip_space(json->next + 1);
                value = fs_json_value(json);
            }
            failed = value == NULL || PyDict_SetItem(object, name, value) != 0;
            Py_DECREF(name);
            Py_XDECREF(value);
            if (failed)
                goto fail;
            json->next = fs_json_skip_space(json->next);
            if (*json->next != ',')
                break;
            json->next = fs_json_skip_space(json->next + 1);
        }
        if (*json->next != '}')
            goto fail;
    }
    json->next++;
    json->depth--;
    return object;
fail:
    Py_DECREF(object);
    return NULL;
}

/* Passes `word`, which the text may have here. */
static int fs_json_word(fs_json *json, const char *word)
{
    size_t size = strlen(word);
    if (strncmp(json->next, word, size) != 0)
        return 0;
    json->next += size;
    return 1;
}

static PyObject *fs_json_value(fs_json *json)
{
    PyObject *constant = NULL;
    switch (*json->next) {
    case '"': json->next++; return fs_json_string(json);
    case '{': json->next++; return fs_json_object(json);
    case '[': json->next++; return fs_json_array(json);
    case 'n': constant = fs_json_word(json, "null") ? Py_None : NULL; break;
    case 't': constant = fs_json_word(json, "true") ? Py_True : NULL; break;
    case 'f': constant = fs_json_word(json, "false") ? Py_False : NULL; break;
    case 'N': return fs_json_word(json, "NaN") ? PyFloat_FromDouble(Py_NAN) : NULL;
    case 'I': return fs_json_word(json, "Infinity") ? PyFloat_FromDouble(INFINITY) : NULL;
    case '-':
        if (fs_json_word(json, "-Infinity"))
            return PyFloat_FromDouble(-INFINITY);
        return fs_json_number(json);
    default: return fs_json_number(json);
    }
    Py_XINCREF(constant);
    return constant;
}

/* Returns whether the rest of the text is UTF-8, or -1 with an exception set. */
static int fs_json_rest_is_utf8(const fs_json *json)
{
    const char *at = json->next;
    PyObject *rest;
    while (at < json->end && !(*at & 0x80))
        at++;
    if (at == json->end)
        return 1;
    rest = PyUnicode_DecodeUTF8(at, json->end - at, "strict");
    Py_XDECREF(rest);
    return rest != NULL ? 1 : -1;
}

/* Returns (value, offset after it) of the value that begins at byte `start` of `data`; with `in_array`, of the array
 * whose opening bracket would stand before `start`. None: declined, ask the json module. NULL: an exception is set.
 */
static PyObject *fs_json_decode(PyObject *data, Py_ssize_t start, int in_array)
{
    fs_json json;
    PyObject *value, *result = NULL;
    size_t place;

    memset(&json, 0, sizeof json);
    json.next = PyBytes_AS_STRING(data) + start;
    json.end = PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data);
    value = in_array ? fs_json_array(&json) : fs_json_value(&json);
    if (value != NULL && fs_json_rest_is_utf8(&json) == 1)
        result = Py_BuildValue("(On)", value, (Py_ssize_t)(json.next - PyBytes_AS_STRING(data)));
    Py_XDECREF(value);
    for (place = 0; place < sizeof json.shared / sizeof *json.shared; place++)
        Py_XDECREF(json.shared[place]);
    PyMem_Free(json.scratch);
    if (result == NULL && (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_ValueError))) {
        PyErr_Clear();
        Py_INCREF(Py_None);
        result = Py_None;
    }
    return result;
}

#endif
