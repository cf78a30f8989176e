/* The configuration of topics as Kafka's tools know it: names, types, defaults, what may be set.
 * Names that have no meaning here (replicas, tiers, cleaning details) can be set and are shown, and
 * do nothing. For src/face/kafka only. */
#ifndef WEIR_FACE_KAFKA_TOPIC_CONFIG_H
#define WEIR_FACE_KAFKA_TOPIC_CONFIG_H

#include "face/kafka/kafka.h"

/* As DescribeConfigs numbers them. */
enum config_type {
    CONFIG_BOOLEAN = 1,
    CONFIG_STRING,
    CONFIG_INT,
    CONFIG_SHORT,
    CONFIG_LONG,
    CONFIG_DOUBLE,
    CONFIG_LIST,
};

enum config_source {
    SOURCE_TOPIC = 1,
    SOURCE_STATIC_BROKER = 4,
    SOURCE_DEFAULT = 5,
};

struct topic_config {
    const char *name;
    enum config_type type;
    const char *value;       /* the default */
    const char *broker_name; /* of the broker's default, for synonyms */
    int64_t min;             /* of numbers */
    const char *choices;     /* of strings and lists, ", " between them; NULL: any */
    const char *about;
};

enum { TOPIC_CONFIGS = 32 };
extern const struct topic_config topic_configs[TOPIC_CONFIGS];

/* NULL: there is none of that name. */
const struct topic_config *topic_config_find(struct slice name);

/* Takes blanks off the value and checks it. False: *problem is what to tell the client. */
bool topic_config_check(struct request *request, struct slice name, struct slice *value,
                        struct slice *problem);

/* What holds for a topic: the value, in the arena, and whether it is the topic's own. topic NULL:
 * the default. */
struct slice topic_config_value(struct request *request, const struct topic *topic,
                                const struct topic_config *config, bool *own);

#endif
