/* What the C library librdkafka, as Debian ships it, does with a broker, checked by itself: HOST:PORT PREFIX; see
 * ../README.md. It is years older than the one in Python's package, and speaks older versions. */
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_MS 300000
#define RECORDS 200

static const char *bootstrap;

#define expect(condition, ...)                                                                                          \
    do {                                                                                                                \
        if (!(condition)) {                                                                                             \
            fprintf(stderr, "line %d: ", __LINE__);                                                                     \
            fprintf(stderr, __VA_ARGS__);                                                                               \
            fputc('\n', stderr);                                                                                        \
            exit(1);                                                                                                    \
        }                                                                                                               \
    } while (0)

/* A client with settings in pairs, ended by NULL. */
static rd_kafka_t *client(rd_kafka_type_t type, const char *const *settings) {
    char error[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    expect(rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, error, sizeof error) == RD_KAFKA_CONF_OK, "%s", error);
    for (; *settings; settings += 2) {
        int set = rd_kafka_conf_set(conf, settings[0], settings[1], error, sizeof error);
        expect(set == RD_KAFKA_CONF_OK, "%s", error);
    }
    rd_kafka_t *made = rd_kafka_new(type, conf, error, sizeof error);
    expect(made, "%s", error);
    return made;
}

/* Waits for the result of an admin request, and takes it off the queue. */
static rd_kafka_event_t *result_of(rd_kafka_queue_t *queue) {
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, WAIT_MS);
    expect(event, "an admin request is answered");
    expect(!rd_kafka_event_error(event), "admin: %s", rd_kafka_event_error_string(event));
    return event;
}

static rd_kafka_resp_err_t create(rd_kafka_t *rk, rd_kafka_queue_t *queue, const char *topic, const char *retention) {
    char error[512];
    rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(topic, 1, 1, error, sizeof error);
    expect(wanted, "%s", error);
    expect(!rd_kafka_NewTopic_set_config(wanted, "retention.ms", retention), "a setting");
    rd_kafka_CreateTopics(rk, &wanted, 1, NULL, queue);
    rd_kafka_event_t *event = result_of(queue);
    size_t count;
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
    expect(count == 1, "%zu results", count);
    rd_kafka_resp_err_t found = rd_kafka_topic_result_error(results[0]);
    rd_kafka_event_destroy(event);
    rd_kafka_NewTopic_destroy(wanted);
    return found;
}

static rd_kafka_resp_err_t delete(rd_kafka_t *rk, rd_kafka_queue_t *queue, const char *topic) {
    rd_kafka_DeleteTopic_t *unwanted = rd_kafka_DeleteTopic_new(topic);
    rd_kafka_DeleteTopics(rk, &unwanted, 1, NULL, queue);
    rd_kafka_event_t *event = result_of(queue);
    size_t count;
    const rd_kafka_topic_result_t **results =
        rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &count);
    rd_kafka_resp_err_t found = rd_kafka_topic_result_error(results[0]);
    rd_kafka_event_destroy(event);
    rd_kafka_DeleteTopic_destroy(unwanted);
    return found;
}

static void admin(const char *topic, const char *gone) {
    const char *none[] = {NULL};
    rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, none);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_resp_err_t found = create(rk, queue, topic, "-1");
    expect(found == RD_KAFKA_RESP_ERR_NO_ERROR, "a topic is created: %s", rd_kafka_err2name(found));
    found = create(rk, queue, topic, "-1");
    expect(found == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS, "and not twice: %s", rd_kafka_err2name(found));
    found = create(rk, queue, gone, "soon");
    expect(found == RD_KAFKA_RESP_ERR_INVALID_CONFIG, "nor with a value that cannot be: %s", rd_kafka_err2name(found));
    found = create(rk, queue, gone, "1000");
    expect(found == RD_KAFKA_RESP_ERR_NO_ERROR, "another one is created: %s", rd_kafka_err2name(found));
    found = delete(rk, queue, gone);
    expect(found == RD_KAFKA_RESP_ERR_NO_ERROR, "and deleted: %s", rd_kafka_err2name(found));
    found = delete(rk, queue, gone);
    expect(found == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, "but not twice: %s", rd_kafka_err2name(found));

    rd_kafka_ConfigResource_t *resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
    rd_kafka_DescribeConfigs(rk, &resource, 1, NULL, queue);
    rd_kafka_event_t *event = result_of(queue);
    size_t count, entries;
    const rd_kafka_ConfigResource_t **resources =
        rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(event), &count);
    const rd_kafka_ConfigEntry_t **settings = rd_kafka_ConfigResource_configs(resources[0], &entries);
    int seen = 0;
    for (size_t at = 0; at < entries; at++)
        if (!strcmp(rd_kafka_ConfigEntry_name(settings[at]), "retention.ms")) {
            seen = !strcmp(rd_kafka_ConfigEntry_value(settings[at]), "-1");
            expect(rd_kafka_ConfigEntry_source(settings[at]) == RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG, "its source");
        }
    expect(seen, "a topic's settings are described");
    rd_kafka_event_destroy(event);
    rd_kafka_ConfigResource_destroy(resource);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(rk);
}

/* Value of record `number`, and its key: none for every third. */
static void record(int number, const char *label, char *key, char *value) {
    snprintf(key, 32, number % 3 ? "key-%d" : "", number % 7);
    snprintf(value, 128, "%s %d", label, number);
}

/* Writes RECORDS records with one codec, and waits until all are delivered. */
static void produce(const char *topic, const char *codec, const char *acks, const char *idempotent) {
    const char *settings[] = {
        "compression.codec", codec, "acks", acks, "enable.idempotence", idempotent, "linger.ms", "5", NULL,
    };
    rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, settings);
    for (int number = 0; number < RECORDS; number++) {
        char key[32], value[128];
        record(number, codec, key, value);
        rd_kafka_headers_t *headers = rd_kafka_headers_new(2);
        rd_kafka_header_add(headers, "same", -1, "1", 1);
        rd_kafka_header_add(headers, "same", -1, NULL, 0);
        rd_kafka_resp_err_t error = rd_kafka_producev(
            rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
            RD_KAFKA_V_KEY(*key ? key : NULL, strlen(key)), RD_KAFKA_V_VALUE(value, strlen(value)),
            RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
        expect(!error, "a record is taken: %s", rd_kafka_err2name(error));
    }
    rd_kafka_resp_err_t error = rd_kafka_flush(rk, WAIT_MS);
    expect(!error && rd_kafka_outq_len(rk) == 0, "all are delivered: %s", rd_kafka_err2name(error));
    rd_kafka_destroy(rk);
}

/* Joins a group, reads what `rounds` producers wrote, and commits it. */
static void consume(const char *topic, const char *group, const char **codecs, int rounds, int64_t from) {
    const char *settings[] = {
        "group.id", group, "enable.auto.commit", "false", "auto.offset.reset", "earliest", "check.crcs", "true",
        "session.timeout.ms", "30000", NULL,
    };
    rd_kafka_t *rk = client(RD_KAFKA_CONSUMER, settings);
    rd_kafka_poll_set_consumer(rk);
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, topic, RD_KAFKA_PARTITION_UA);
    expect(!rd_kafka_subscribe(rk, topics), "it subscribes");
    for (int64_t offset = from; offset < (int64_t)rounds * RECORDS; offset++) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(rk, WAIT_MS);
        expect(message && !message->err, "record %" PRId64 ": %s", offset, message ? rd_kafka_message_errstr(message) : "none");
        char key[32], value[128];
        record((int)(offset % RECORDS), codecs[offset / RECORDS], key, value);
        expect(message->offset == offset, "offset %" PRId64 " for %" PRId64, message->offset, offset);
        expect(message->len == strlen(value) && !memcmp(message->payload, value, message->len), "its value comes back");
        expect(message->key_len == strlen(key) && !memcmp(message->key, key, message->key_len), "so does its key");
        rd_kafka_headers_t *headers;
        expect(!rd_kafka_message_headers(message, &headers) && rd_kafka_header_cnt(headers) == 2, "and its headers");
        rd_kafka_message_destroy(message);
    }
    rd_kafka_resp_err_t error = rd_kafka_commit(rk, NULL, 0);
    expect(!error, "the position is committed: %s", rd_kafka_err2name(error));
    rd_kafka_topic_partition_list_t *places = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(places, topic, 0);
    error = rd_kafka_committed(rk, places, WAIT_MS);
    expect(!error && places->elems[0].offset == (int64_t)rounds * RECORDS, "and read back: %s", rd_kafka_err2name(error));
    int64_t low, high;
    error = rd_kafka_query_watermark_offsets(rk, topic, 0, &low, &high, WAIT_MS);
    expect(!error && low == 0 && high == (int64_t)rounds * RECORDS, "both ends are known: %s", rd_kafka_err2name(error));

    const struct rd_kafka_group_list *groups;
    error = rd_kafka_list_groups(rk, group, &groups, WAIT_MS);
    expect(!error && groups->group_cnt == 1, "the group is described: %s", rd_kafka_err2name(error));
    expect(!strcmp(groups->groups[0].state, "Stable") && groups->groups[0].member_cnt == 1, "%s", groups->groups[0].state);
    rd_kafka_group_list_destroy(groups);
    rd_kafka_topic_partition_list_destroy(places);
    rd_kafka_topic_partition_list_destroy(topics);
    error = rd_kafka_consumer_close(rk);
    expect(!error, "it leaves: %s", rd_kafka_err2name(error));
    rd_kafka_destroy(rk);
}

int main(int count, char **arguments) {
    expect(count == 3, "HOST:PORT PREFIX");
    bootstrap = arguments[1];
    char topic[128], gone[128], group[128];
    snprintf(topic, sizeof topic, "%s-main", arguments[2]);
    snprintf(gone, sizeof gone, "%s-gone", arguments[2]);
    snprintf(group, sizeof group, "%s-group", arguments[2]);
    admin(topic, gone);
    const char *codecs[] = {"none", "gzip", "snappy", "lz4", "zstd", "none", "zstd"};
    const char *acks[] = {"1", "all", "1", "all", "1", "all", "all"};
    const char *idempotent[] = {"false", "false", "false", "false", "false", "true", "true"};
    int rounds = sizeof codecs / sizeof *codecs;
    for (int round = 0; round < rounds - 1; round++)
        produce(topic, codecs[round], acks[round], idempotent[round]);
    consume(topic, group, codecs, rounds - 1, 0);
    produce(topic, codecs[rounds - 1], acks[rounds - 1], idempotent[rounds - 1]);
    consume(topic, group, codecs, rounds, (int64_t)(rounds - 1) * RECORDS);
    return 0;
}
