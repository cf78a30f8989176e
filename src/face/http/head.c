/* The head of an HTTP/1.x request (RFC 9112): request line, fields, an empty line; each line ends
 * with CR LF and with nothing else. What the RFC lets a server forgive is not forgiven, since two
 * readers that forgive differently are how requests are smuggled: no bare LF, no folded lines, no
 * space before a colon, no second Host or differing Content-Length. Transfer codings are refused:
 * nothing here takes a body. */
#include "face/http/http.h"

enum { DIGITS_MAX = 18 };

/* ---- Where it ends ---- */

static bool is_control(uint8_t c)
{
    return (c < 0x20 && c != '\t') || c == 0x7f;
}

enum http_scan http_head_scan(const uint8_t *data, size_t len, size_t *seen)
{
    for (; *seen < len; ++*seen) {
        size_t at = *seen;
        uint8_t c = data[at], before = at > 0 ? data[at - 1] : 0;
        if ((c == '\n') != (before == '\r') || (c == '\r' && at == 0))
            return HTTP_SCAN_BAD;
        if (c != '\n' && c != '\r' && is_control(c))
            return HTTP_SCAN_BAD;
        if (c == '\n' && at >= 3 && data[at - 2] == '\n') {
            *seen = at + 1;
            return HTTP_SCAN_END;
        }
    }
    return HTTP_SCAN_MORE;
}

/* ---- Words ---- */

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_token_char(uint8_t c)
{
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return letter || is_digit(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(struct slice word)
{
    for (size_t i = 0; i < word.len; i++) {
        if (!is_token_char(word.data[i]))
            return false;
    }
    return word.len > 0;
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

/* `word` is in lower case. */
static bool is_word(struct slice text, const char *word)
{
    if (text.len != strlen(word))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (lower(text.data[i]) != (uint8_t)word[i])
            return false;
    }
    return true;
}

static struct slice trim(struct slice text)
{
    while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = slice_make(text.data + 1, text.len - 1);
    while (text.len > 0 && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t'))
        text.len--;
    return text;
}

/* Takes what stands before the first `end` off the text, and that too. False: there is none. */
static bool take_until(struct slice *text, uint8_t end, struct slice *out)
{
    const uint8_t *found = text->len > 0 ? memchr(text->data, end, text->len) : NULL;
    if (found == NULL)
        return false;
    *out = slice_make(text->data, (size_t)(found - text->data));
    *text = slice_make(found + 1, text->len - out->len - 1);
    return true;
}

/* A line without its CR LF; the scan has seen to it that there is one. */
static struct slice take_line(struct slice *head)
{
    struct slice line = {.data = head->data, .len = 0};
    if (take_until(head, '\n', &line) && line.len > 0)
        line.len--;
    return line;
}

/* ---- The request line ---- */

/* The path of "/path?query", or of "http://authority/path?query", which proxies send. */
static bool target_read(struct slice target, struct slice *path)
{
    static const char scheme[] = "http://";
    for (size_t i = 0; i < target.len; i++) {
        if (target.data[i] <= ' ' || target.data[i] >= 0x7f)
            return false;
    }
    if (target.len > sizeof scheme && is_word(slice_make(target.data, sizeof scheme - 1), scheme)) {
        struct slice rest =
            slice_make(target.data + sizeof scheme - 1, target.len - (sizeof scheme - 1));
        const uint8_t *slash = memchr(rest.data, '/', rest.len);
        if (slash == NULL || slash == rest.data)
            return false;
        target = slice_make(slash, rest.len - (size_t)(slash - rest.data));
    }
    if (target.len == 0 || target.data[0] != '/')
        return false;
    const uint8_t *query = memchr(target.data, '?', target.len);
    *path = slice_make(target.data, query ? (size_t)(query - target.data) : target.len);
    return true;
}

static uint16_t version_read(struct slice text, uint8_t *minor)
{
    static const char name[] = "HTTP/";
    if (text.len != 8 || memcmp(text.data, name, 5) != 0 || !is_digit(text.data[5]) ||
        text.data[6] != '.' || !is_digit(text.data[7]))
        return 400;
    if (text.data[5] != '1')
        return 505;
    *minor = text.data[7] == '0' ? 0 : 1;
    return 0;
}

static uint16_t line_read(struct slice line, struct http_request *out)
{
    struct slice method, target;
    if (!take_until(&line, ' ', &method) || !is_token(method) || !take_until(&line, ' ', &target))
        return 400;
    uint16_t status =
        version_read(line, &out->minor); /* another version may name targets otherwise */
    if (status != 0)
        return status;
    if (!target_read(target, &out->path))
        return 400;
    out->method = slice_equal(method, slice_of("GET"))    ? HTTP_GET
                  : slice_equal(method, slice_of("HEAD")) ? HTTP_HEAD
                                                          : HTTP_OTHER;
    return 0;
}

/* ---- Fields ---- */

struct fields {
    uint32_t count, hosts, lengths;
    bool close, keep, transfer;
};

static uint16_t length_read(struct slice value, struct fields *fields, struct http_request *out)
{
    uint64_t length = 0;
    if (value.len == 0)
        return 400;
    for (size_t i = 0; i < value.len; i++) {
        if (!is_digit(value.data[i]))
            return 400;
        if (i >= DIGITS_MAX)
            return 413;
        length = length * 10 + (uint64_t)(value.data[i] - '0');
    }
    if (fields->lengths++ > 0 && length != out->body_bytes)
        return 400;
    out->body_bytes = length;
    return 0;
}

/* A list of words; "close" and "keep-alive" are those that matter. */
static void connection_read(struct slice value, struct fields *fields)
{
    for (bool more = true; more;) {
        struct slice word = value;
        more = take_until(&value, ',', &word);
        word = trim(word);
        fields->close |= is_word(word, "close");
        fields->keep |= is_word(word, "keep-alive");
    }
}

static uint16_t field_read(struct slice line, struct fields *fields, struct http_request *out)
{
    struct slice name;
    if (++fields->count > HTTP_FIELDS_MAX)
        return 431;
    if (!take_until(&line, ':', &name) || !is_token(name))
        return 400; /* also a folded line, which begins with a space */
    struct slice value = trim(line);
    if (is_word(name, "host"))
        fields->hosts++;
    else if (is_word(name, "content-length"))
        return length_read(value, fields, out);
    else if (is_word(name, "transfer-encoding"))
        fields->transfer = true;
    else if (is_word(name, "connection"))
        connection_read(value, fields);
    else if (is_word(name, "expect"))
        out->expects = true;
    return 0;
}

uint16_t http_head_read(struct slice head, struct http_request *out)
{
    struct fields fields = {0};
    *out = (struct http_request){0};
    uint16_t status = line_read(take_line(&head), out);
    if (status != 0)
        return status;
    for (struct slice line; (line = take_line(&head)).len > 0;) {
        status = field_read(line, &fields, out);
        if (status != 0)
            return status;
    }
    if (fields.hosts > 1 || (fields.hosts == 0 && out->minor > 0))
        return 400;
    if (fields.transfer)
        return fields.lengths > 0 || out->minor == 0 ? 400 : 411;
    if (out->body_bytes > HTTP_BODY_BYTES_MAX)
        return 413;
    out->keep_alive = !fields.close && (out->minor > 0 || fields.keep);
    return 0;
}
