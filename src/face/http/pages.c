/* What stands at which path: the figures for a Prometheus server, a word for a prober, a page for a
 * human. Each takes GET and HEAD. */
#include "face/http/http.h"

static const char PLAIN[] = "text/plain; charset=utf-8";

static void index_page(struct conn *conn, struct page *page);
static void metrics_page(struct conn *conn, struct page *page);
static void health_page(struct conn *conn, struct page *page);

static const struct {
    const char *path, *about;
    void (*answer)(struct conn *conn, struct page *page);
} pages[] = {
    {"/", "this page", index_page},
    {"/metrics", "the figures for Prometheus, also under RabbitMQ's names", metrics_page},
    {"/healthz", "200 while all is well, 503 when the disk is full or storage has failed",
     health_page},
};

enum { PAGES = sizeof pages / sizeof pages[0] };

const char *http_reason(uint16_t status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 411:
        return "Length Required";
    case 413:
        return "Content Too Large";
    case 431:
        return "Request Header Fields Too Large";
    case 503:
        return "Service Unavailable";
    default:
        return "HTTP Version Not Supported";
    }
}

void page_status(uint16_t status, struct page *page)
{
    page->status = status;
    page->type = PLAIN;
    page->fields = "";
    text_format(&page->body, "%u %s\n", status, http_reason(status));
}

static void metrics_page(struct conn *conn, struct page *page)
{
    uint64_t metrics[METRIC_COUNT];
    conn_metrics(conn, metrics);
    page->type = "text/plain; version=0.0.4; charset=utf-8";
    exposition_put(&page->body, metrics, conn_config(conn));
}

static void health_page(struct conn *conn, struct page *page)
{
    enum err err = conn_health(conn);
    page->status = err == ERR_NONE ? 200 : 503;
    page->type = PLAIN;
    text_format(&page->body, "%s\n", err == ERR_NONE ? "ok" : err_text(err));
}

/* ---- For humans ---- */

static void figures_put(struct text *text, const uint64_t metrics[METRIC_COUNT])
{
    text_put(text, "<table>\n<tr><th>metric<th>value<th>what it is\n");
    for (uint32_t i = 0; i < METRIC_OWN_FAMILIES; i++) {
        const struct metric_family *family = &METRIC_FAMILIES[i];
        for (uint32_t k = 0; k < family->count; k++) {
            const struct metric_series *series = &METRIC_SERIES[family->first + k];
            text_put(text, "<tr><td>");
            text_put(text, family->name);
            text_put_html(text, series->labels);
            text_put(text, "<td class=n>");
            exposition_put_value(text, family, series, metrics);
            text_put(text, "<td>");
            text_put_html(text, k == 0 ? family->help : "");
            text_put(text, "\n");
        }
    }
    text_put(text, "</table>\n");
}

static void index_page(struct conn *conn, struct page *page)
{
    struct text *text = &page->body;
    const struct face_config *config = conn_config(conn);
    uint64_t metrics[METRIC_COUNT];
    conn_metrics(conn, metrics);
    page->type = "text/html; charset=utf-8";
    page->fields = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n";
    text_put(text, "<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n<title>");
    text_put_html(text, config->cluster_name);
    text_put(text, "</title>\n<style>\n"
                   "body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; }\n"
                   "table { border-collapse: collapse; }\n"
                   "td, th { text-align: left; padding: 0 1em 0 0; vertical-align: top; }\n"
                   "td:first-child, .n { font-family: monospace; }\n"
                   ".n { text-align: right; }\n"
                   "</style>\n<h1>");
    text_put_html(text, config->cluster_name);
    text_put(text, "</h1>\n<p>Weir ");
    text_put_html(text, config->version);
    text_put(text, ": ");
    text_put(text, conn_health(conn) == ERR_NONE ? "all is well" : err_text(conn_health(conn)));
    text_put(text, ".\n<ul>\n");
    for (uint32_t i = 0; i < PAGES; i++)
        text_format(text, "<li><a href=\"%s\">%s</a>: %s\n", pages[i].path, pages[i].path,
                    pages[i].about);
    text_put(text, "</ul>\n");
    figures_put(text, metrics);
}

void page_answer(struct conn *conn, const struct http_request *request, struct page *page)
{
    uint32_t at = 0;
    while (at < PAGES && !slice_equal(request->path, slice_of(pages[at].path)))
        at++;
    if (at == PAGES) {
        page_status(404, page);
    } else if (request->method == HTTP_OTHER) {
        page_status(405, page);
        page->fields = "Allow: GET, HEAD\r\n";
    } else {
        page->status = 200;
        page->fields = "";
        pages[at].answer(conn, page);
    }
}
