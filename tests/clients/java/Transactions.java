import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Transactions with Kafka's Java library, checked by itself: HOST:PORT PREFIX; see ../README.md. */
public final class Transactions {
    private static final int PARTITIONS = 2;
    private static final int INPUT = 60;
    private static String bootstrap;

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        String prefix = arguments[1];
        String main = prefix + "-txn";
        String input = prefix + "-txn-in";
        String output = prefix + "-txn-out";
        try (Admin admin = Admin.create(Access.with(Map.of("bootstrap.servers", bootstrap)))) {
            List<NewTopic> topics = new ArrayList<>();
            for (String name : List.of(main, input, output)) {
                topics.add(new NewTopic(name, PARTITIONS, (short) 1));
            }
            admin.createTopics(topics).all().get();
        }
        commitAndAbort(main, prefix);
        fence(main, prefix);
        consumeTransformProduce(input, output, prefix);
    }

    private static void commitAndAbort(String topic, String prefix) throws Exception {
        List<String> committed = new ArrayList<>();
        try (var producer = producer(prefix + "-commit")) {
            producer.initTransactions();
            for (int transaction = 0; transaction < 6; transaction++) {
                producer.beginTransaction();
                for (int record = 0; record < 4; record++) {
                    String value = transaction + "-" + record;
                    producer.send(new ProducerRecord<>(topic, record % PARTITIONS, null, bytes(value)));
                    if (transaction % 3 != 1) {
                        committed.add(value);
                    }
                }
                if (transaction % 3 == 1) {
                    producer.flush();
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
            // Nothing was written: both ends are allowed.
            producer.beginTransaction();
            producer.commitTransaction();
            producer.beginTransaction();
            producer.abortTransaction();
        }
        expect(read(topic, "read_committed", committed.size()), sorted(committed));
        expect(read(topic, "read_uncommitted", 24).size(), 24);
    }

    private static void fence(String topic, String prefix) throws Exception {
        var first = producer(prefix + "-fence");
        first.initTransactions();
        first.beginTransaction();
        first.send(new ProducerRecord<>(topic, 0, null, bytes("fenced"))).get();
        try (var second = producer(prefix + "-fence")) {
            second.initTransactions();
            String refused = "nothing";
            try {
                first.send(new ProducerRecord<>(topic, 0, null, bytes("late")));
                first.commitTransaction();
            } catch (ProducerFencedException | InvalidProducerEpochException error) {
                refused = "fenced";
            }
            expect(refused, "fenced");
            second.beginTransaction();
            second.send(new ProducerRecord<>(topic, 0, null, bytes("after"))).get();
            second.commitTransaction();
        } finally {
            first.close(Duration.ZERO);
        }
        List<String> seen = read(topic, "read_committed", 17);
        expect(seen.contains("after") && !seen.contains("fenced") && !seen.contains("late"), true);
    }

    private static void consumeTransformProduce(String input, String output, String prefix) throws Exception {
        try (var producer = producer(null)) {
            for (int number = 0; number < INPUT; number++) {
                producer.send(new ProducerRecord<>(input, number % PARTITIONS, null, bytes("" + number)));
            }
        }
        String group = prefix + "-txn-group";
        List<String> expected = new ArrayList<>();
        for (int number = 0; number < INPUT; number++) {
            expected.add("<" + number + ">");
        }
        // Two lives: the first ends in the middle of a transaction.
        for (int life = 0; life < 2; life++) {
            var consumer = consumer("read_committed", group);
            var producer = producer(prefix + "-transform");
            producer.initTransactions();
            consumer.subscribe(List.of(input));
            int done = 0;
            int rounds = 0;
            while (life == 0 ? rounds < 3 : left(consumer, input) > 0) {
                var records = consumer.poll(Duration.ofMillis(500));
                if (records.isEmpty()) {
                    continue;
                }
                producer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    byte[] value = bytes("<" + new String(record.value(), StandardCharsets.UTF_8) + ">");
                    producer.send(new ProducerRecord<>(output, record.partition(), null, value));
                    offsets.put(new TopicPartition(input, record.partition()), new OffsetAndMetadata(record.offset() + 1));
                    done++;
                }
                producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                if (life == 0 && rounds == 2) {
                    producer.flush();
                } else if (rounds == 1) {
                    producer.abortTransaction();
                    for (TopicPartition partition : consumer.assignment()) {
                        var place = consumer.committed(java.util.Set.of(partition)).get(partition);
                        consumer.seek(partition, place == null ? 0 : place.offset());
                    }
                } else {
                    producer.commitTransaction();
                }
                rounds++;
            }
            expect(done > 0 || life == 1, true);
            producer.close(Duration.ZERO);
            consumer.close();
        }
        expect(read(output, "read_committed", INPUT), sorted(expected));
    }

    /** Records of the input that no committed transaction has read. */
    private static long left(KafkaConsumer<byte[], byte[]> consumer, String input) {
        long left = 0;
        for (int partition = 0; partition < PARTITIONS; partition++) {
            var at = new TopicPartition(input, partition);
            var place = consumer.committed(java.util.Set.of(at)).get(at);
            left += INPUT / PARTITIONS - (place == null ? 0 : place.offset());
        }
        return left;
    }

    private static KafkaProducer<byte[], byte[]> producer(String id) {
        Map<String, Object> settings = Access.with(Map.of("bootstrap.servers", bootstrap, "linger.ms", "1"));
        if (id != null) {
            settings.put("transactional.id", id);
        }
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String isolation, String group) {
        Map<String, Object> settings = Access.with(Map.of(
            "bootstrap.servers", bootstrap, "isolation.level", isolation, "enable.auto.commit", "false",
            "auto.offset.reset", "earliest", "max.poll.records", "7"));
        if (group != null) {
            settings.put("group.id", group);
        }
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** Everything up to the end as that isolation sees it, which is that many records. */
    private static List<String> read(String topic, String isolation, int count) {
        List<String> values = new ArrayList<>();
        try (var consumer = consumer(isolation, null)) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (int partition = 0; partition < PARTITIONS; partition++) {
                partitions.add(new TopicPartition(topic, partition));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long limit = System.nanoTime() + 300_000_000_000L;
            while (System.nanoTime() < limit) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    values.add(new String(record.value(), StandardCharsets.UTF_8));
                }
                var ends = consumer.endOffsets(partitions);
                boolean isAtEnd = partitions.stream().allMatch(at -> consumer.position(at) >= ends.get(at));
                if (isAtEnd && values.size() >= count) {
                    return sorted(values);
                }
            }
        }
        throw new AssertionError(topic + ": " + values.size() + " of " + count + " records came: " + values);
    }

    private static List<String> sorted(List<String> values) {
        return values.stream().sorted().toList();
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static void expect(Object found, Object expected) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError("expected " + expected + ", found " + found);
        }
    }
}
