import java.io.BufferedReader;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Test client on Kafka's own Java library; see ../README.md. */
public final class Client {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (int at = 1; at + 1 < arguments.length; at += 2) {
            options.put(arguments[at].substring(2), arguments[at + 1]);
        }
        switch (arguments[0]) {
            case "produce" -> produce(options);
            case "consume" -> consume(options);
            case "group" -> group(options);
            default -> throw new IllegalArgumentException("unknown verb " + arguments[0]);
        }
    }

    private static void produce(Map<String, String> options) throws Exception {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", options.get("bootstrap"),
            "compression.type", options.getOrDefault("codec", "none"),
            "linger.ms", 5);
        List<Future<RecordMetadata>> answers = new ArrayList<>();
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
                BufferedReader lines = Files.newBufferedReader(Path.of(options.get("input")))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                JsonNode record = JSON.readTree(line);
                var message = new ProducerRecord<>(options.get("topic"), null, record.get("timestamp").asLong(),
                    bytes(record.get("key")), bytes(record.get("value")));
                for (JsonNode header : record.get("headers")) {
                    message.headers().add(header.get(0).asText(), bytes(header.get(1)));
                }
                answers.add(producer.send(message));
            }
            producer.flush();
            for (Future<RecordMetadata> answer : answers) {
                answer.get();
            }
        }
    }

    private static void consume(Map<String, String> options) throws Exception {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", options.get("bootstrap"),
            "isolation.level", options.getOrDefault("isolation", "read_uncommitted"),
            "auto.offset.reset", "none",
            "enable.auto.commit", false);
        int wanted = Integer.parseInt(options.get("count"));
        int found = 0;
        try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
                var output = new PrintWriter(options.get("output"), StandardCharsets.UTF_8)) {
            List<TopicPartition> partitions = consumer.partitionsFor(options.get("topic")).stream()
                .map(one -> new TopicPartition(one.topic(), one.partition())).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            for (int idle = 0; found < wanted && idle < 300; ) {
                var records = consumer.poll(Duration.ofSeconds(1));
                idle = records.isEmpty() ? idle + 1 : 0;
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    output.println(JSON.writeValueAsString(json(record)));
                    found++;
                }
            }
        }
        if (found != wanted) {
            System.err.println("consume: " + found + " of " + wanted + " records came");
            System.exit(1);
        }
    }

    private static void group(Map<String, String> options) throws Exception {
        Map<String, Object> config = new HashMap<>(Map.of(
            "bootstrap.servers", options.get("bootstrap"),
            "group.id", options.get("group"),
            "auto.offset.reset", "earliest",
            "enable.auto.commit", false,
            "metadata.max.age.ms", 1000,
            "max.poll.records", 100));
        if (options.getOrDefault("protocol", "classic").equals("consumer")) {
            config.put("group.protocol", "consumer");
            if (options.containsKey("assignor")) {
                config.put("group.remote.assignor", options.get("assignor"));
            }
        } else {
            config.put("partition.assignment.strategy", RangeAssignor.class.getName());
            config.put("session.timeout.ms", 12_000);
            config.put("heartbeat.interval.ms", 500);
        }
        if (options.containsKey("instance")) {
            config.put("group.instance.id", options.get("instance"));
        }
        var ended = new AtomicBoolean();
        var watcher = new Thread(() -> {
            try {
                System.in.transferTo(OutputStream.nullOutputStream());
            } catch (IOException unreadable) {
                // As good as its end.
            }
            ended.set(true);
        });
        watcher.setDaemon(true);
        watcher.start();
        try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
                var output = new PrintWriter(options.get("output"), StandardCharsets.UTF_8)) {
            if (options.containsKey("pattern")) {
                consumer.subscribe(new SubscriptionPattern(options.get("pattern")));
            } else {
                consumer.subscribe(List.of(options.get("topic")));
            }
            while (!ended.get()) {
                var records = consumer.poll(Duration.ofMillis(200));
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    output.println(JSON.writeValueAsString(json(record)));
                }
                output.flush();
                try {
                    consumer.commitSync();
                } catch (CommitFailedException | RebalanceInProgressException rebalanced) {
                    // Whoever has the partition now reads these records again.
                }
            }
        }
    }

    private static ObjectNode json(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode line = JSON.createObjectNode()
            .put("partition", record.partition()).put("offset", record.offset()).put("timestamp", record.timestamp())
            .put("key", text(record.key())).put("value", text(record.value()));
        ArrayNode headers = line.putArray("headers");
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(text(header.value()));
        }
        return line;
    }

    private static byte[] bytes(JsonNode field) {
        return field.isNull() ? null : Base64.getDecoder().decode(field.asText());
    }

    private static String text(byte[] data) {
        return data == null ? null : Base64.getEncoder().encodeToString(data);
    }
}
