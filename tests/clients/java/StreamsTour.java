import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Collection;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.stream.Stream;

import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.Stores;

/**
 * The part of AdminTour that is about groups of the streams protocol (KIP-1071): an application that counts what is in the
 * topic "tour", looked at and changed while it runs, after it has left, and after it is gone.
 */
final class StreamsTour {
    private static final String GROUP = "tour-streams";
    private static final TopicPartition FIRST = new TopicPartition("tour", 0);
    private static final int TRIES = 3000;
    private final Admin admin;
    private final String bootstrap;
    private final Say say;

    /** Prints what was asked and what came of it. */
    interface Say {
        void of(String what, Callable<Object> ask) throws Exception;
    }

    StreamsTour(Admin admin, String bootstrap, Say say) {
        this.admin = admin;
        this.bootstrap = bootstrap;
        this.say = say;
    }

    void go() throws Exception {
        nobody();
        Path folder = Files.createTempDirectory("streams-tour");
        try {
            var application = new KafkaStreams(counting(), config(folder));
            try {
                application.start();
                until("the application works", () -> described().groupState() == GroupState.STABLE
                    && tasks(described()) == 3 && offset() == 10);
                alive();
            } finally {
                application.close(CloseOptions.timeout(Duration.ofSeconds(60))
                    .withGroupMembershipOperation(CloseOptions.GroupMembershipOperation.LEAVE_GROUP));
            }
        } finally {
            try (Stream<Path> files = Files.walk(folder)) {
                files.sorted(Comparator.reverseOrder()).forEach(file -> file.toFile().delete());
            }
        }
        until("the application has left", () -> described().groupState() == GroupState.EMPTY);
        empty();
        gone();
    }

    private Properties config(Path folder) {
        var config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("application.id", GROUP);
        config.put("group.protocol", "streams");
        config.put("state.dir", folder.toString());
        config.put("num.stream.threads", 1);
        config.put("commit.interval.ms", 100);
        return config;
    }

    private static org.apache.kafka.streams.Topology counting() {
        var builder = new StreamsBuilder();
        builder.stream("tour", Consumed.with(Serdes.String(), Serdes.String())).groupByKey()
            .count(Materialized.as(Stores.inMemoryKeyValueStore("counts")));
        return builder.build();
    }

    private void nobody() throws Exception {
        var group = new ConfigResource(ConfigResource.Type.GROUP, GROUP);
        say.of("listStreamsGroupOffsets unknown", this::offsets);
        say.of("deleteStreamsGroupOffsets unknown", () -> admin.deleteStreamsGroupOffsets(GROUP, Set.of(FIRST)).all().get());
        say.of("deleteStreamsGroups unknown", () -> admin.deleteStreamsGroups(List.of(GROUP)).all().get());
        say.of("incrementalAlterConfigs streams group", () -> admin.incrementalAlterConfigs(Map.of(group, List.of(
            new AlterConfigOp(new ConfigEntry("streams.heartbeat.interval.ms", "6000"), AlterConfigOp.OpType.SET)))).all().get());
        say.of("describeConfigs streams group", () -> {
            var found = admin.describeConfigs(List.of(group)).all().get().get(group);
            return Stream.of("streams.heartbeat.interval.ms", "streams.num.standby.replicas")
                .map(name -> name + " " + found.get(name).value() + " " + found.get(name).source()).toList();
        });
    }

    private void alive() throws Exception {
        say.of("describeStreamsGroups live", () -> {
            var group = admin.describeStreamsGroups(List.of(GROUP),
                new DescribeStreamsGroupsOptions().includeAuthorizedOperations(true)).all().get().get(GROUP);
            var members = group.members().stream().map(member -> member.clientHost() + " " + member.topologyEpoch() + " "
                + member.instanceId() + " " + member.rackId() + " " + member.clientTags() + " " + member.isClassic() + " "
                + shown(member.assignment()) + " " + shown(member.targetAssignment())).toList();
            return group.groupState() + " " + group.topologyEpoch() + " " + group.authorizedOperations().stream().sorted().toList()
                + " " + members + " " + group.subtopologies().stream().map(StreamsTour::shown).toList();
        });
        say.of("listStreamsGroupOffsets live", this::offsets);
        say.of("listStreamsGroupOffsets chosen", () -> places(admin.listStreamsGroupOffsets(Map.of(GROUP,
            new ListStreamsGroupOffsetsSpec().topicPartitions(List.of(FIRST, new TopicPartition("nobody", 0)))))
            .partitionsToOffsetAndMetadata(GROUP).get()));
        say.of("deleteStreamsGroups live", () -> admin.deleteStreamsGroups(List.of(GROUP)).all().get());
        say.of("alterStreamsGroupOffsets live", () -> alter(GROUP, FIRST, new OffsetAndMetadata(5)));
        say.of("deleteStreamsGroupOffsets live", () -> admin.deleteStreamsGroupOffsets(GROUP, Set.of(FIRST)).all().get());
        say.of("describeConsumerGroups of a streams group", () -> admin.describeConsumerGroups(List.of(GROUP)).all().get());
        say.of("describeClassicGroups of a streams group", () -> admin.describeClassicGroups(List.of(GROUP)).all().get());
    }

    private void empty() throws Exception {
        say.of("describeStreamsGroups empty", () -> described().groupState() + " " + described().members());
        say.of("listGroups streams type", () -> admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.STREAMS)))
            .all().get().stream().filter(one -> one.groupId().startsWith("tour")).toList());
        say.of("listStreamsGroupOffsets empty", this::offsets);
        say.of("alterStreamsGroupOffsets", () -> alter(GROUP, FIRST, new OffsetAndMetadata(7, Optional.of(0), "note")));
        say.of("alterStreamsGroupOffsets unknown topic", () ->
            alter(GROUP, new TopicPartition("nobody", 0), new OffsetAndMetadata(1)));
        say.of("alterStreamsGroupOffsets new group", () -> alter("tour-streams-made", FIRST, new OffsetAndMetadata(2)));
        say.of("listStreamsGroupOffsets altered", this::offsets);
        say.of("describeStreamsGroups made by offsets", () ->
            admin.describeStreamsGroups(List.of("tour-streams-made")).all().get());
        say.of("deleteStreamsGroupOffsets", () -> admin.deleteStreamsGroupOffsets(GROUP, Set.of(FIRST)).all().get());
        say.of("deleteStreamsGroupOffsets unknown topic", () ->
            admin.deleteStreamsGroupOffsets(GROUP, Set.of(new TopicPartition("nobody", 0))).all().get());
        say.of("listStreamsGroupOffsets deleted", this::offsets);
    }

    private void gone() throws Exception {
        say.of("deleteStreamsGroups", () -> admin.deleteStreamsGroups(List.of(GROUP, "tour-streams-made")).all().get());
        say.of("deleteStreamsGroups again", () -> admin.deleteStreamsGroups(List.of(GROUP)).all().get());
        say.of("deleteStreamsGroups one of two", () -> {
            var deleted = admin.deleteStreamsGroups(List.of(GROUP, "tour-nobody")).deletedGroups();
            Map<String, String> outcomes = new TreeMap<>();
            for (var one : deleted.entrySet()) {
                try {
                    outcomes.put(one.getKey(), String.valueOf(one.getValue().get()));
                } catch (ExecutionException error) {
                    outcomes.put(one.getKey(), error.getCause().getClass().getSimpleName());
                }
            }
            return outcomes;
        });
        say.of("describeStreamsGroups gone", () -> admin.describeStreamsGroups(List.of(GROUP)).all().get());
        say.of("listStreamsGroupOffsets gone", this::offsets);
        say.of("alterStreamsGroupOffsets gone", () -> alter(GROUP, FIRST, new OffsetAndMetadata(1)));
        say.of("deleteStreamsGroups for good", () -> admin.deleteStreamsGroups(List.of(GROUP)).all().get());
    }

    private StreamsGroupDescription described() throws Exception {
        return admin.describeStreamsGroups(List.of(GROUP)).all().get().get(GROUP);
    }

    private Object alter(String group, TopicPartition place, OffsetAndMetadata offset) throws Exception {
        return admin.alterStreamsGroupOffsets(group, Map.of(place, offset)).all().get();
    }

    private Object offsets() throws Exception {
        return places(admin.listStreamsGroupOffsets(Map.of(GROUP, new ListStreamsGroupOffsetsSpec()))
            .partitionsToOffsetAndMetadata(GROUP).get());
    }

    private long offset() throws Exception {
        var found = admin.listStreamsGroupOffsets(Map.of(GROUP, new ListStreamsGroupOffsetsSpec()))
            .partitionsToOffsetAndMetadata(GROUP).get().get(FIRST);
        return found == null ? -1 : found.offset();
    }

    private static long tasks(StreamsGroupDescription group) {
        return group.members().stream().flatMap(member -> member.assignment().activeTasks().stream())
            .mapToLong(task -> task.partitions().size()).sum();
    }

    /** Offsets by partition. */
    private static Map<String, String> places(Map<TopicPartition, OffsetAndMetadata> found) {
        Map<String, String> places = new TreeMap<>();
        found.forEach((place, offset) -> places.put(place.toString(), offset == null ? "none" : "" + offset.offset()));
        return places;
    }

    private static String shown(StreamsGroupMemberAssignment assignment) {
        return "" + tasks(assignment.activeTasks()) + tasks(assignment.standbyTasks()) + tasks(assignment.warmupTasks());
    }

    private static List<String> tasks(Collection<StreamsGroupMemberAssignment.TaskIds> tasks) {
        return tasks.stream().map(task -> task.subtopologyId() + " " + task.partitions().stream().sorted().toList()).sorted()
            .toList();
    }

    private static String shown(StreamsGroupSubtopologyDescription part) {
        Map<String, String> changelogs = new TreeMap<>();
        part.stateChangelogTopics().forEach((name, info) -> changelogs.put(name,
            info.partitions() + " " + info.replicationFactor() + " " + new TreeMap<>(info.topicConfigs())));
        return part.subtopologyId() + " " + part.sourceTopics() + " " + part.repartitionSinkTopics() + " " + changelogs + " "
            + part.repartitionSourceTopics();
    }

    /** Waits until something is so; what cannot be looked at yet is not. */
    private static void until(String what, Callable<Boolean> isSo) throws Exception {
        for (int tries = 0; tries < TRIES; tries++, Thread.sleep(50)) {
            try {
                if (isSo.call()) {
                    return;
                }
            } catch (ExecutionException notYet) {
                // The group, or its coordinator, is not there yet.
            }
        }
        throw new AssertionError("not so in time: " + what);
    }
}
