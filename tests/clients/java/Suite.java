import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What Kafka's Java library does with a broker, checked by itself: HOST:PORT PREFIX; see ../README.md. */
public final class Suite {
    private static final int LIMIT_BYTES = 1_048_588;
    private static final long BASE = System.currentTimeMillis() - 3_600_000;
    private static String bootstrap;

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        String main = arguments[1] + "-main";
        String compacted = arguments[1] + "-compacted";
        String gone = arguments[1] + "-gone";
        String made = arguments[1] + "-made";
        try (Admin admin = Admin.create(Access.with(Map.of("bootstrap.servers", bootstrap)))) {
            topics(admin, main, gone);
            admin.createTopics(List.of(topic(compacted, 1, Map.of("cleanup.policy", "compact")))).all().get();
        }
        int end = everyKindComesBack(main);
        byte[] most = new byte[LIMIT_BYTES - 200];
        expect(produce(main, List.of(record(main, "large", most, 0)), "none", "all", false), "");
        expect(produce(main, List.of(record(main, "large", new byte[LIMIT_BYTES], 0)), "none", "all", false),
            "RecordTooLargeException");
        expect(Arrays.equals(read(main, end, 1).get(0).value(), most), true);
        byte[] value = bytes("value");
        expect(produce(compacted, List.of(record(compacted, null, value, 0)), "none", "all", true),
            "InvalidRecordException");
        expect(produce(compacted, List.of(record(compacted, "key", value, 0)), "zstd", "all", true), "");
        expect(produce(made, List.of(record(made, "key", value, 0)), "none", "all", true), "");
        expect(Arrays.equals(read(made, 0, 1).get(0).value(), value), true);
    }

    private static void topics(Admin admin, String main, String gone) throws Exception {
        admin.createTopics(List.of(topic(main, 1, Map.of("retention.ms", "-1")))).all().get();
        expect(refusal(admin.createTopics(List.of(topic(main, 1, Map.of()))).all()), "TopicExistsException");
        expect(refusal(admin.createTopics(List.of(topic(gone, 1, Map.of("retention.ms", "soon")))).all()),
            "InvalidConfigurationException");
        admin.createPartitions(Map.of(main, NewPartitions.increaseTo(2))).all().get();
        var described = admin.describeTopics(List.of(main)).allTopicNames().get().get(main);
        expect(described.partitions().size(), 2);
        expect(admin.describeTopics(TopicCollection.ofTopicIds(List.of(described.topicId())))
            .allTopicIds().get().get(described.topicId()).name(), main);
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, main);
        var change = new AlterConfigOp(new ConfigEntry("segment.bytes", "2097152"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all().get();
        var config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        expect(config.get("segment.bytes").value(), "2097152");
        expect(config.get("segment.bytes").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        admin.createTopics(List.of(topic(gone, 1, Map.of()))).all().get();
        admin.deleteTopics(List.of(gone)).all().get();
        expect(refusal(admin.deleteTopics(List.of(gone)).all()), "UnknownTopicOrPartitionException");
        expect(admin.describeCluster().nodes().get().size(), 1);
    }

    private static int everyKindComesBack(String topic) throws Exception {
        List<ProducerRecord<byte[], byte[]>> expected = new ArrayList<>();
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            for (String acks : List.of("0", "1", "all", "idempotent")) {
                int at = expected.size();
                var plain = record(topic, "key", bytes(codec + acks), at);
                plain.headers().add("same", bytes("1")).add("same", bytes("2")).add("none", null);
                var batch = List.of(plain, record(topic, null, bytes("no key"), at + 1),
                    record(topic, "tombstone", null, at + 2), record(topic, "", new byte[0], at + 3));
                boolean idempotent = acks.equals("idempotent");
                expect(produce(topic, batch, codec, idempotent ? "all" : acks, idempotent), "");
                if (acks.equals("0")) {
                    // Without an answer what the next connection brings could come first.
                    read(topic, at, batch.size());
                }
                expected.addAll(batch);
            }
        }
        var found = read(topic, 0, expected.size());
        for (int at = 0; at < expected.size(); at++) {
            var ours = expected.get(at);
            var theirs = found.get(at);
            boolean same = Arrays.equals(ours.key(), theirs.key()) && Arrays.equals(ours.value(), theirs.value())
                && ours.timestamp() == theirs.timestamp() && theirs.offset() == at
                && Arrays.equals(ours.headers().toArray(), theirs.headers().toArray());
            expect(same ? "" : theirs.toString(), "");
        }
        try (var consumer = consumer()) {
            var place = new TopicPartition(topic, 0);
            for (long at : List.of(0L, 7L, expected.size() - 1L)) {
                expect(consumer.offsetsForTimes(Map.of(place, BASE + at)).get(place).offset(), at);
            }
            expect(consumer.offsetsForTimes(Map.of(place, BASE + expected.size())).get(place), null);
            expect(consumer.endOffsets(List.of(place)).get(place), (long) expected.size());
            expect(consumer.beginningOffsets(List.of(place)).get(place), 0L);
        }
        expect(read(topic, 7, 1).get(0).timestamp(), BASE + 7);
        return expected.size();
    }

    private static String produce(
            String topic, List<ProducerRecord<byte[], byte[]>> batch, String codec, String acks, boolean idempotent)
            throws Exception {
        Map<String, Object> config = Access.with(Map.of("bootstrap.servers", bootstrap, "compression.type", codec,
            "acks", acks, "enable.idempotence", idempotent, "max.request.size", 10_000_000));
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<?>> answers = new ArrayList<>();
            for (var record : batch) {
                answers.add(producer.send(record));
            }
            for (var answer : answers) {
                String refusal = refusal(answer);
                if (!refusal.isEmpty()) {
                    return refusal;
                }
            }
        }
        return "";
    }

    private static List<ConsumerRecord<byte[], byte[]>> read(String topic, long offset, int count) {
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        try (var consumer = consumer()) {
            var place = new TopicPartition(topic, 0);
            consumer.assign(List.of(place));
            consumer.seek(place, offset);
            consumer.pause(List.of(place));
            expect(consumer.poll(Duration.ofMillis(300)).count(), 0);
            consumer.resume(List.of(place));
            while (found.size() < count) {
                var records = consumer.poll(Duration.ofSeconds(300));
                expect(records.isEmpty(), false);
                records.forEach(found::add);
            }
        }
        return found;
    }

    private static KafkaConsumer<byte[], byte[]> consumer() {
        Map<String, Object> config = Access.with(Map.of("bootstrap.servers", bootstrap, "allow.auto.create.topics", false));
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static NewTopic topic(String name, int partitions, Map<String, String> configs) {
        return new NewTopic(name, Optional.of(partitions), Optional.empty()).configs(configs);
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, String key, byte[] value, long at) {
        return new ProducerRecord<>(topic, 0, BASE + at, key == null ? null : bytes(key), value);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** The name of the error in an answer, or nothing. */
    private static String refusal(KafkaFuture<?> answer) throws Exception {
        return refusal(answer.toCompletionStage().toCompletableFuture());
    }

    private static String refusal(Future<?> answer) throws Exception {
        try {
            answer.get();
            return "";
        } catch (ExecutionException error) {
            return error.getCause().getClass().getSimpleName();
        }
    }

    private static void expect(Object found, Object wanted) {
        if (!Objects.equals(found, wanted)) {
            throw new AssertionError("found " + found + ", wanted " + wanted);
        }
    }
}
