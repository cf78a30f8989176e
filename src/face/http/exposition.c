/* The figures in Prometheus' text format, version 0.0.4: first what is ours, then the same under
 * the names of RabbitMQ's exporter. What is shown under which name stands in spec/metrics.toml. */
#include "face/http/http.h"

#include <inttypes.h>

static uint64_t sum_of(const struct metric_series *series, const uint64_t metrics[METRIC_COUNT])
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < series->count; i++)
        sum += metrics[METRIC_PARTS[series->first + i]];
    return sum;
}

void exposition_put_value(struct text *text, const struct metric_family *family,
                          const struct metric_series *series, const uint64_t metrics[METRIC_COUNT])
{
    uint64_t sum = sum_of(series, metrics), fraction = sum % family->divide;
    text_format(text, "%" PRIu64, sum / family->divide);
    if (family->divide == 1)
        return;
    text_put(text, ".");
    for (uint32_t unit = family->divide / 10; unit > 0; unit /= 10)
        text_format(text, "%" PRIu64, fraction / unit % 10);
}

static void head_put(struct text *text, const char *name, const char *type, const char *help)
{
    text_format(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void family_put(struct text *text, const struct metric_family *family,
                       const uint64_t metrics[METRIC_COUNT])
{
    head_put(text, family->name, family->type, family->help);
    for (uint32_t i = 0; i < family->count; i++) {
        const struct metric_series *series = &METRIC_SERIES[family->first + i];
        text_format(text, "%s%s ", family->name, series->labels);
        exposition_put_value(text, family, series, metrics);
        text_put(text, "\n");
    }
}

/* ---- What does not change ---- */

struct label {
    const char *name, *value;
};

/* Ends with a NULL name. */
static void info_put(struct text *text, const char *name, const char *help,
                     const struct label *labels)
{
    head_put(text, name, "gauge", help);
    text_format(text, "%s{", name);
    for (const struct label *label = labels; label->name != NULL; label++) {
        text_format(text, "%s%s=\"", label == labels ? "" : ",", label->name);
        text_put_label(text, label->value);
        text_put(text, "\"");
    }
    text_put(text, "} 1\n");
}

static void own_infos_put(struct text *text, const struct face_config *config, const char *cluster)
{
    info_put(text, "weir_build_info", "What the broker is.",
             (const struct label[]){{"version", config->version}, {0}});
    info_put(text, "weir_node_info", "Who the broker is.",
             (const struct label[]){{"node", config->cluster_name}, {"cluster_id", cluster}, {0}});
}

static void rabbitmq_infos_put(struct text *text, const struct face_config *config,
                               const char *cluster)
{
    info_put(text, "rabbitmq_build_info", "What the broker is.",
             (const struct label[]){{"rabbitmq_version", config->version},
                                    {"prometheus_plugin_version", config->version},
                                    {"erlang_version", ""},
                                    {"product_name", "Weir"},
                                    {"product_version", config->version},
                                    {0}});
    info_put(text, "rabbitmq_identity_info", "Who the broker is.",
             (const struct label[]){{"rabbitmq_node", config->cluster_name},
                                    {"rabbitmq_cluster", config->cluster_name},
                                    {"rabbitmq_cluster_permanent_id", cluster},
                                    {0}});
}

/* The cluster's id in hexadecimal. */
static void cluster_id(const struct face_config *config, char out[33])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof config->cluster_id; i++) {
        out[2 * i] = digits[config->cluster_id[i] >> 4];
        out[2 * i + 1] = digits[config->cluster_id[i] & 15];
    }
    out[32] = '\0';
}

void exposition_put(struct text *text, const uint64_t metrics[METRIC_COUNT],
                    const struct face_config *config)
{
    char cluster[33];
    cluster_id(config, cluster);
    own_infos_put(text, config, cluster);
    for (uint32_t i = 0; i < METRIC_OWN_FAMILIES; i++)
        family_put(text, &METRIC_FAMILIES[i], metrics);
    rabbitmq_infos_put(text, config, cluster);
    for (uint32_t i = METRIC_OWN_FAMILIES; i < METRIC_FAMILY_COUNT; i++)
        family_put(text, &METRIC_FAMILIES[i], metrics);
}
