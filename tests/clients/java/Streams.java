import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Collectors;

import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.WindowStore;

/**
 * A Kafka Streams application; see ../README.md. Events (host, "LEVEL number") are joined with a table of hosts (host,
 * region), rekeyed to region|LEVEL, which takes a repartition topic, and counted by minute in window stores with changelog
 * topics. "-counts" gets each new count, "-numbers" the event numbers of a window, which do not change when an event is
 * counted twice.
 */
public final class Streams {
    private static final Serde<String> TEXT = Serdes.String();

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (int at = 0; at + 1 < arguments.length; at += 2) {
            options.put(arguments[at].substring(2), arguments[at + 1]);
        }
        var config = new Properties();
        config.put("bootstrap.servers", options.get("bootstrap"));
        config.put("application.id", options.get("application"));
        config.put("state.dir", options.get("state"));
        config.put("processing.guarantee", options.get("guarantee"));
        config.put("group.protocol", options.getOrDefault("protocol", "classic"));
        config.put("num.stream.threads", 2);
        // Every event makes an update of its count: the test compares all of them, not only the last.
        config.put("statestore.cache.max.bytes", 0);
        config.put("commit.interval.ms", 100);
        config.put("repartition.purge.interval.ms", 500);
        config.put("metadata.max.age.ms", 2000);
        // The host table is there before the first event; events wait until it was read.
        config.put("max.task.idle.ms", 1000);
        config.put("producer.transaction.timeout.ms", 10_000);
        if (config.get("group.protocol").equals("classic")) {
            config.put("consumer.session.timeout.ms", 10_000);
            config.put("consumer.heartbeat.interval.ms", 300);
        }
        var streams = new KafkaStreams(topology(options.get("topic")), config);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        var ended = new CountDownLatch(1);
        streams.setStateListener((now, before) -> System.out.println(now));
        streams.start();
        var watcher = new Thread(() -> {
            try {
                System.in.readAllBytes();
            } catch (java.io.IOException unreadable) {
                // As good as its end.
            }
            ended.countDown();
        });
        watcher.setDaemon(true);
        watcher.start();
        ended.await();
        if (!streams.close(Duration.ofSeconds(300))) {
            throw new AssertionError("the application does not close");
        }
    }

    private static Topology topology(String topic) {
        var builder = new StreamsBuilder();
        KTable<String, String> hosts =
            builder.table(topic + "-hosts", Consumed.with(TEXT, TEXT), Materialized.as("hosts"));
        KStream<String, String> events = builder.stream(topic + "-events", Consumed.with(TEXT, TEXT));
        var windows = events
            .join(hosts, (event, region) -> region + "|" + event, Joined.with(TEXT, TEXT, TEXT))
            .selectKey((host, joined) -> joined.substring(0, joined.indexOf(' ')))
            .groupByKey(Grouped.with("by-region", TEXT, TEXT))
            .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMinutes(1), Duration.ofDays(1)));
        windows.count(Materialized.as("counts"))
            .toStream((windowed, count) -> label(windowed))
            .mapValues(count -> count.toString())
            .to(topic + "-counts", Produced.with(TEXT, TEXT));
        Materialized<String, String, WindowStore<Bytes, byte[]>> numbers = Materialized.as("numbers");
        windows.aggregate(() -> "", (key, joined, seen) -> with(seen, joined.substring(joined.indexOf(' ') + 1)),
                numbers.withKeySerde(TEXT).withValueSerde(TEXT))
            .toStream((windowed, seen) -> label(windowed))
            .to(topic + "-numbers", Produced.with(TEXT, TEXT));
        return builder.build();
    }

    private static String label(Windowed<String> windowed) {
        return windowed.key() + "@" + windowed.window().start();
    }

    private static String with(String seen, String number) {
        var numbers = new TreeSet<Integer>();
        Arrays.stream(seen.split(",")).filter(one -> !one.isEmpty()).map(Integer::valueOf).forEach(numbers::add);
        numbers.add(Integer.valueOf(number));
        return numbers.stream().map(Object::toString).collect(Collectors.joining(","));
    }
}
