/*
 * The sources are read from the strongest to the weakest, flags, environment, file, and an option
 * keeps the value of the first that names it; what a weaker one says is still checked. Every value
 * goes through value_set, which knows the kinds of options and nothing about where a value stands;
 * its caller puts that before the complaint.
 */
#include "server/config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define FILE_BYTES_MAX (1024 * 1024)
#define NAME_BYTES_MAX 64
#define REASON_BYTES   320
#define SHOWN_MAX      100 /* so many bytes of a wrong value or name are shown */

static_assert(CONFIG_FACE_COUNT <= CONFIG_LISTEN_MAX, "every face can listen at once");

static const char ENVIRONMENT_PREFIX[] = "WEIR_";

/* --- names ------------------------------------------------------------------------------------ */

/* A name that is short enough to be compared, as a C string; false when it is not. */
static bool name_copy(char name[NAME_BYTES_MAX], struct slice from)
{
    if (from.len == 0 || from.len >= NAME_BYTES_MAX || memchr(from.data, '\0', from.len))
        return false;
    memcpy(name, from.data, from.len);
    name[from.len] = '\0';
    return true;
}

/* Levenshtein's distance of two names shorter than NAME_BYTES_MAX. */
static unsigned name_distance(const char *a, const char *b)
{
    unsigned row[NAME_BYTES_MAX];
    size_t b_len = strlen(b);

    assert(strlen(a) < NAME_BYTES_MAX && b_len < NAME_BYTES_MAX);
    for (unsigned j = 0; j <= b_len; j++)
        row[j] = j;
    for (unsigned i = 1; a[i - 1] != '\0'; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned replace = diagonal + (a[i - 1] != b[j - 1]);
            unsigned insert = row[j - 1] + 1, remove = row[j] + 1;
            diagonal = row[j];
            row[j] = replace < insert ? replace : insert;
            row[j] = row[j] < remove ? row[j] : remove;
        }
    }
    return row[b_len];
}

/* The option of that name, or OPTION_COUNT. */
static enum option_id option_find(const char *name)
{
    int id = 0;

    while (id < OPTION_COUNT && strcmp(OPTIONS[id].name, name) != 0)
        id++;
    return (enum option_id)id;
}

/* The option whose name differs least, when that is little enough to be meant; or OPTION_COUNT. */
static enum option_id option_nearest(const char *name)
{
    size_t len = strlen(name);
    unsigned best = len <= 4 ? 2 : len <= 9 ? 3 : 5; /* one above what is still near */
    enum option_id nearest = OPTION_COUNT;

    for (int id = 0; id < OPTION_COUNT; id++) {
        unsigned distance = name_distance(name, OPTIONS[id].name);
        if (distance < best) {
            best = distance;
            nearest = (enum option_id)id;
        }
    }
    return nearest;
}

/* A letter of an option's name as it stands in the environment. */
static char letter_shout(char c)
{
    if (c == '-')
        return '_';
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

/* --- values ----------------------------------------------------------------------------------- */

/* How a bad value is shown: its beginning. */
static int shown(struct slice value)
{
    return (int)(value.len < SHOWN_MAX ? value.len : SHOWN_MAX);
}

static enum err uint_parse(struct slice text, uint64_t min, uint64_t max, uint64_t *value)
{
    uint64_t sum = 0;

    if (text.len == 0 || text.len > 19)
        return ERR_INVALID;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return ERR_INVALID;
        sum = sum * 10 + (uint64_t)(text.data[i] - '0'); /* 19 digits fit */
    }
    if (sum < min || sum > max)
        return ERR_INVALID;
    *value = sum;
    return ERR_NONE;
}

/* HOST:PORT, where an IPv6 address stands in brackets. */
static enum err address_parse(struct slice text, struct config_listen *listen)
{
    const uint8_t *colon = memrchr(text.data, ':', text.len);
    struct slice host;
    uint64_t port;

    if (colon == NULL)
        return ERR_INVALID;
    host = slice_make(text.data, (size_t)(colon - text.data));
    if (uint_parse(slice_make(colon + 1, text.len - host.len - 1), 0, UINT16_MAX, &port))
        return ERR_INVALID;
    if (host.len > 2 && host.data[0] == '[' && host.data[host.len - 1] == ']')
        host = slice_make(host.data + 1, host.len - 2);
    else if (memchr(host.data, ':', host.len))
        return ERR_INVALID;
    if (host.len == 0 || host.len >= CONFIG_HOST_BYTES)
        return ERR_INVALID;
    for (size_t i = 0; i < host.len; i++) {
        if (host.data[i] <= ' ' || host.data[i] >= 0x7f || strchr("[]/,=", host.data[i]))
            return ERR_INVALID;
    }
    memcpy(listen->host, host.data, host.len);
    listen->host[host.len] = '\0';
    listen->port = (uint16_t)port;
    return ERR_NONE;
}

static enum err listen_add(struct config *config, struct slice text, char *reason)
{
    const uint8_t *equals = memchr(text.data, '=', text.len);
    struct config_listen listen;
    int face = 0;

    if (equals == NULL) {
        snprintf(reason, REASON_BYTES, "'%.*s' is not FACE=HOST:PORT", shown(text), text.data);
        return ERR_INVALID;
    }
    struct slice name = slice_make(text.data, (size_t)(equals - text.data));
    while (face < CONFIG_FACE_COUNT && !slice_equal(name, slice_of(OPTION_FACES[face].name)))
        face++;
    if (face == CONFIG_FACE_COUNT) {
        int len =
            snprintf(reason, REASON_BYTES, "'%.*s' is no face; there are", shown(name), name.data);
        for (int i = 0; i < CONFIG_FACE_COUNT && len > 0 && len < REASON_BYTES; i++)
            len += snprintf(reason + len, (size_t)(REASON_BYTES - len), "%s %s", i ? "," : "",
                            OPTION_FACES[i].name);
        return ERR_INVALID;
    }
    listen.face = (enum config_face)face;
    struct slice address = slice_make(equals + 1, text.len - name.len - 1);
    if (address_parse(address, &listen)) {
        snprintf(reason, REASON_BYTES, "'%.*s' is not HOST:PORT (an IPv6 address in brackets)",
                 shown(address), address.data);
        return ERR_INVALID;
    }
    if (config->listen_count == CONFIG_LISTEN_MAX) {
        snprintf(reason, REASON_BYTES, "there are more than %d", CONFIG_LISTEN_MAX);
        return ERR_INVALID;
    }
    config->listen[config->listen_count++] = listen;
    return ERR_NONE;
}

static enum err text_set(char *field, size_t size, const struct option_row *option,
                         struct slice value, char *reason)
{
    if (value.len == 0 && option->initial[0] != '\0')
        snprintf(reason, REASON_BYTES, "must not be empty");
    else if (value.len >= size)
        snprintf(reason, REASON_BYTES, "is longer than %zu bytes", size - 1);
    else if (memchr(value.data, '\0', value.len))
        snprintf(reason, REASON_BYTES, "holds a NUL byte");
    else {
        memcpy(field, value.data, value.len);
        field[value.len] = '\0';
        return ERR_NONE;
    }
    return ERR_INVALID;
}

static enum err uint_set(void *field, size_t size, const struct option_row *option,
                         struct slice value, char *reason)
{
    uint64_t number;

    if (uint_parse(value, option->min, option->max, &number)) {
        snprintf(reason, REASON_BYTES, "'%.*s' is not a whole number from %" PRIu64 " to %" PRIu64,
                 shown(value), value.data, option->min, option->max);
        return ERR_INVALID;
    }
    if (size == sizeof(uint32_t)) {
        uint32_t narrow = (uint32_t)number;
        memcpy(field, &narrow, sizeof(narrow));
    } else {
        assert(size == sizeof(number));
        memcpy(field, &number, sizeof(number));
    }
    return ERR_NONE;
}

static enum err bool_set(bool *field, struct slice value, char *reason)
{
    if (slice_equal(value, slice_of("true"))) {
        *field = true;
    } else if (slice_equal(value, slice_of("false"))) {
        *field = false;
    } else {
        snprintf(reason, REASON_BYTES, "'%.*s' is neither true nor false", shown(value),
                 value.data);
        return ERR_INVALID;
    }
    return ERR_NONE;
}

static enum err choice_set(void *field, size_t size, const struct option_row *option,
                           struct slice value, char *reason)
{
    int len;

    for (unsigned i = 0; option->choices[i] != NULL; i++) {
        if (slice_equal(value, slice_of(option->choices[i]))) {
            assert(size == sizeof(i));
            memcpy(field, &i, sizeof(i)); /* an enum without negative members is an unsigned */
            return ERR_NONE;
        }
    }
    len = snprintf(reason, REASON_BYTES, "'%.*s' is none of", shown(value), value.data);
    for (int i = 0; option->choices[i] != NULL && len > 0 && len < REASON_BYTES; i++)
        len += snprintf(reason + len, (size_t)(REASON_BYTES - len), "%s %s", i ? "," : "",
                        option->choices[i]);
    return ERR_INVALID;
}

/* Checks the value and puts it into its field; `reason` says what is wrong with it. */
static enum err value_set(struct config *config, enum option_id id, struct slice value,
                          char *reason)
{
    const struct option_row *option = &OPTIONS[id];
    void *field = (char *)config + option->offset;

    switch (option->kind) {
    case KIND_TEXT:
        return text_set(field, option->size, option, value, reason);
    case KIND_UINT:
        return uint_set(field, option->size, option, value, reason);
    case KIND_BOOL:
        return bool_set(field, value, reason);
    case KIND_CHOICE:
        return choice_set(field, option->size, option, value, reason);
    case KIND_LISTEN:
        return listen_add(config, value, reason);
    }
    return ERR_INVALID;
}

/*
 * One value from a source. An option that a stronger source has set keeps its value, but the new
 * one is checked as well, on a copy: what is wrong should not wait for the flag to go away.
 */
static enum err option_set(struct config *config, enum option_id id, struct slice value,
                           enum config_source source, char *reason)
{
    enum err err;

    if (config->source[id] > source) {
        struct config *scratch = malloc(sizeof(*scratch));
        if (scratch == NULL) {
            snprintf(reason, REASON_BYTES, "out of memory");
            return ERR_NO_MEMORY;
        }
        config_init(scratch);
        err = value_set(scratch, id, value, reason);
        free(scratch);
        return err;
    }
    err = value_set(config, id, value, reason);
    if (err == ERR_NONE)
        config->source[id] = source;
    return err;
}

/* --- sources ---------------------------------------------------------------------------------- */

/* --name value, or --name=value. */
static enum err flags_read(struct config *config, const char *const *flags,
                           struct config_problem *problem)
{
    char name[NAME_BYTES_MAX], reason[REASON_BYTES];

    for (; *flags != NULL; flags++) {
        const char *flag = *flags, *value;
        if (strncmp(flag, "--", 2) != 0 || flag[2] == '\0') {
            snprintf(problem->text, sizeof(problem->text), "'%.*s' is not an option (--NAME)",
                     SHOWN_MAX, flag);
            return ERR_INVALID;
        }
        const char *equals = strchr(flag, '=');
        struct slice word =
            equals ? slice_make(flag + 2, (size_t)(equals - flag) - 2) : slice_of(flag + 2);
        bool fits = name_copy(name, word);
        enum option_id id = fits ? option_find(name) : OPTION_COUNT;
        if (id == OPTION_COUNT) {
            enum option_id nearest = fits ? option_nearest(name) : OPTION_COUNT;
            bool near = nearest != OPTION_COUNT;
            snprintf(problem->text, sizeof(problem->text), "--%.*s: there is no such option%s%s%s",
                     shown(word), word.data, near ? "; did you mean --" : "",
                     near ? OPTIONS[nearest].name : "", near ? "?" : "");
            return ERR_NOT_FOUND;
        }
        value = equals ? equals + 1 : *++flags;
        if (value == NULL) {
            snprintf(problem->text, sizeof(problem->text), "--%s: needs a value", name);
            return ERR_INVALID;
        }
        enum err err = option_set(config, id, slice_of(value), CONFIG_FLAG, reason);
        if (err) {
            snprintf(problem->text, sizeof(problem->text), "--%s: %s", name, reason);
            return err;
        }
    }
    return ERR_NONE;
}

/* The values of one variable: a list of addresses is separated by commas. */
static enum err variable_set(struct config *config, enum option_id id, const char *value,
                             char *reason)
{
    if (OPTIONS[id].kind != KIND_LISTEN)
        return option_set(config, id, slice_of(value), CONFIG_ENVIRONMENT, reason);
    for (;;) {
        size_t len = strcspn(value, ",");
        enum err err = option_set(config, id, slice_make(value, len), CONFIG_ENVIRONMENT, reason);
        if (err || value[len] == '\0')
            return err;
        value += len + 1;
    }
}

/* The environment's variable of an option, as WEIR_LOG_LEVEL. */
static void variable_name(char name[NAME_BYTES_MAX], enum option_id id)
{
    size_t i;

    for (i = 0; OPTIONS[id].name[i] != '\0'; i++) {
        assert(i + 1 < NAME_BYTES_MAX);
        name[i] = letter_shout(OPTIONS[id].name[i]);
    }
    name[i] = '\0';
}

static enum err environment_read(struct config *config, const char *const *environment,
                                 struct config_problem *problem)
{
    size_t prefix = sizeof(ENVIRONMENT_PREFIX) - 1;
    char name[NAME_BYTES_MAX], known[NAME_BYTES_MAX], reason[REASON_BYTES];

    for (; *environment != NULL; environment++) {
        const char *word = *environment, *equals = strchr(word, '=');
        if (strncmp(word, ENVIRONMENT_PREFIX, prefix) != 0 || equals == NULL)
            continue;
        word += prefix;
        if (equals < word || !name_copy(name, slice_make(word, (size_t)(equals - word))))
            continue;

        int id = 0;
        for (; id < OPTION_COUNT; id++) {
            variable_name(known, (enum option_id)id);
            if (strcmp(known, name) == 0)
                break;
        }
        if (id < OPTION_COUNT) {
            enum err err = variable_set(config, (enum option_id)id, equals + 1, reason);
            if (err) {
                snprintf(problem->text, sizeof(problem->text), "%s%s: %s", ENVIRONMENT_PREFIX, name,
                         reason);
                return err;
            }
            continue;
        }
        for (id = 0; id < OPTION_COUNT; id++) {
            variable_name(known, (enum option_id)id);
            if (name_distance(known, name) <= (strlen(known) <= 4 ? 1U : 2U)) {
                snprintf(problem->text, sizeof(problem->text),
                         "%s%s: there is no such option; did you mean %s%s?", ENVIRONMENT_PREFIX,
                         name, ENVIRONMENT_PREFIX, known);
                return ERR_NOT_FOUND;
            }
        }
    }
    return ERR_NONE;
}

static struct slice trimmed(struct slice text)
{
    while (text.len > 0 && strchr(" \t\r", text.data[0]) && text.data[0] != '\0') {
        text.data++;
        text.len--;
    }
    while (text.len > 0 && strchr(" \t\r", text.data[text.len - 1]) &&
           text.data[text.len - 1] != '\0')
        text.len--;
    return text;
}

/* One line of the file, not empty and not a comment; `where` it stands begins a problem. */
static enum err line_read(struct config *config, struct slice line, const char *where,
                          struct config_problem *problem)
{
    const uint8_t *equals = memchr(line.data, '=', line.len);
    char name[NAME_BYTES_MAX], reason[REASON_BYTES];

    if (equals == NULL) {
        snprintf(problem->text, sizeof(problem->text), "%s: '%.*s' is not NAME = VALUE", where,
                 shown(line), line.data);
        return ERR_INVALID;
    }
    struct slice word = trimmed(slice_make(line.data, (size_t)(equals - line.data)));
    struct slice value =
        trimmed(slice_make(equals + 1, line.len - (size_t)(equals - line.data) - 1));
    if (value.len >= 2 && value.data[0] == '"' && value.data[value.len - 1] == '"')
        value = slice_make(value.data + 1, value.len - 2);

    bool fits = name_copy(name, word);
    enum option_id id = fits ? option_find(name) : OPTION_COUNT;
    if (id == OPTION_COUNT) {
        enum option_id nearest = fits ? option_nearest(name) : OPTION_COUNT;
        bool near = nearest != OPTION_COUNT && OPTIONS[nearest].in_file;
        snprintf(problem->text, sizeof(problem->text), "%s: %.*s: there is no such option%s%s%s",
                 where, shown(word), word.data, near ? "; did you mean " : "",
                 near ? OPTIONS[nearest].name : "", near ? "?" : "");
        return ERR_NOT_FOUND;
    }
    if (!OPTIONS[id].in_file) {
        snprintf(problem->text, sizeof(problem->text), "%s: %s: makes no sense in a file", where,
                 name);
        return ERR_INVALID;
    }
    enum err err = option_set(config, id, value, CONFIG_FILE, reason);
    if (err)
        snprintf(problem->text, sizeof(problem->text), "%s: %s: %s", where, name, reason);
    return err;
}

enum err config_read(struct config *config, const char *path, struct slice text,
                     struct config_problem *problem)
{
    char where[SHOWN_MAX + 16];
    unsigned number = 0;

    while (text.len > 0) {
        const uint8_t *end = memchr(text.data, '\n', text.len);
        size_t len = end ? (size_t)(end - text.data) : text.len;
        size_t taken = end ? len + 1 : len;
        struct slice line = trimmed(slice_make(text.data, len));

        text = slice_make(text.data + taken, text.len - taken);
        number++;
        if (line.len == 0 || line.data[0] == '#')
            continue;
        snprintf(where, sizeof(where), "%.*s:%u", SHOWN_MAX, path, number);
        enum err err = line_read(config, line, where, problem);
        if (err)
            return err;
    }
    return ERR_NONE;
}

static enum err file_read(struct config *config, const char *path, struct config_problem *problem)
{
    enum err err = ERR_IO;
    FILE *file = fopen(path, "re");
    char *text = malloc(FILE_BYTES_MAX + 1);
    size_t len;

    if (file == NULL || text == NULL) {
        snprintf(problem->text, sizeof(problem->text), "%.*s: %s", SHOWN_MAX, path,
                 strerror(errno));
        goto out;
    }
    len = fread(text, 1, FILE_BYTES_MAX + 1, file);
    if (ferror(file)) {
        snprintf(problem->text, sizeof(problem->text), "%.*s: %s", SHOWN_MAX, path,
                 strerror(errno));
        goto out;
    }
    if (len > FILE_BYTES_MAX) {
        snprintf(problem->text, sizeof(problem->text), "%.*s: is larger than %d bytes", SHOWN_MAX,
                 path, FILE_BYTES_MAX);
        goto out;
    }
    err = config_read(config, path, slice_make(text, len), problem);
out:
    free(text);
    if (file != NULL)
        fclose(file);
    return err;
}

/* --- the whole -------------------------------------------------------------------------------- */

void config_init(struct config *config)
{
    char reason[REASON_BYTES];

    memset(config, 0, sizeof(*config));
    for (int id = 0; id < OPTION_COUNT; id++) {
        if (OPTIONS[id].kind == KIND_LISTEN)
            continue;
        enum err err = value_set(config, (enum option_id)id, slice_of(OPTIONS[id].initial), reason);
        assert(err == ERR_NONE); /* the table's own defaults */
        (void)err;
    }
}

enum err config_load(struct config *config, const char *const *flags,
                     const char *const *environment, struct config_problem *problem)
{
    enum err err;

    config_init(config);
    err = flags_read(config, flags, problem);
    if (err == ERR_NONE)
        err = environment_read(config, environment, problem);
    if (err == ERR_NONE && config->config[0] != '\0')
        err = file_read(config, config->config, problem);
    if (err == ERR_NONE && config->listen_count == 0) {
        for (int face = 0; face < CONFIG_FACE_COUNT; face++) {
            struct config_listen *listen = &config->listen[config->listen_count++];
            listen->face = (enum config_face)face;
            err = address_parse(slice_of(OPTION_FACES[face].addr), listen);
            assert(err == ERR_NONE); /* the table's own */
        }
    }
    return err;
}

const char *config_source_name(enum config_source source)
{
    static const char *const NAMES[] = {"default", "file", "environment", "flag"};

    assert(source <= CONFIG_FLAG);
    return NAMES[source];
}
