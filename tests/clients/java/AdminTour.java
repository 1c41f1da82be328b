import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.Exchanger;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.quota.ClientQuotaFilterComponent;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Every method of Kafka's Admin, one after the other, of two brokers side by side: HOST:PORT HOST:PORT; see ../README.md.
 * Each line says which broker (0 or 1) was asked what and what came of it, without what two brokers cannot have in common,
 * so that the lines of both can be compared.
 *
 * A broker learns of changes in its own time, so what only looks is asked again of both while they differ.
 */
public final class AdminTour {
    private static final long START = System.currentTimeMillis() - 3_600_000;
    private static final TopicPartition FIRST = new TopicPartition("tour", 0);
    private static final int TRIES = 1000;
    private final int number;
    private final String bootstrap;
    private final Exchanger<String> other;
    private final Admin admin;

    private AdminTour(int number, String bootstrap, Exchanger<String> other, Admin admin) {
        this.number = number;
        this.bootstrap = bootstrap;
        this.other = other;
        this.admin = admin;
    }

    public static void main(String[] arguments) throws Exception {
        var exchanger = new Exchanger<String>();
        var threads = Executors.newFixedThreadPool(2);
        var first = threads.submit(() -> go(0, arguments[0], exchanger));
        var second = threads.submit(() -> go(1, arguments[1], exchanger));
        threads.shutdown();
        first.get();
        second.get();
    }

    private static Void go(int number, String bootstrap, Exchanger<String> other) throws Exception {
        Map<String, Object> config =
            Map.of("bootstrap.servers", bootstrap, "default.api.timeout.ms", 60_000, "request.timeout.ms", 30_000);
        try (Admin admin = Admin.create(config)) {
            var tour = new AdminTour(number, bootstrap, other, admin);
            tour.topics();
            tour.records();
            tour.configs();
            tour.groups();
            tour.shares();
            new StreamsTour(admin, bootstrap, tour::say).go();
            tour.cluster();
            tour.quotasAndUsers();
            tour.acls();
            tour.transactions();
            tour.deletion();
        }
        return null;
    }

    private void topics() throws Exception {
        say("createTopics", () -> admin.createTopics(List.of(new NewTopic("tour", 2, (short) 1),
            new NewTopic("tour-compacted", Optional.empty(), Optional.empty())
                .configs(Map.of("cleanup.policy", "compact")),
            new NewTopic("tour-assigned", Map.of(0, List.of(1), 1, List.of(1))))).all().get());
        settle("tour", "tour-compacted", "tour-assigned");
        say("createTopics again", () -> admin.createTopics(List.of(new NewTopic("tour", 1, (short) 1))).all().get());
        say("createTopics validate", () -> {
            var made = admin.createTopics(List.of(new NewTopic("tour-later", 3, (short) -1)),
                new CreateTopicsOptions().validateOnly(true));
            return made.numPartitions("tour-later").get() + " " + made.replicationFactor("tour-later").get();
        });
        say("createTopics replicas", () -> admin.createTopics(List.of(new NewTopic("tour-3", 1, (short) 3))).all().get());
        say("listTopics", () -> names(admin.listTopics().names().get()));
        say("listTopics internal", () ->
            names(admin.listTopics(new ListTopicsOptions().listInternal(true)).names().get()));
        say("describeTopics", () -> admin.describeTopics(List.of("tour", "tour-assigned")).allTopicNames().get());
        say("describeTopics operations", () -> admin.describeTopics(List.of("tour"),
            new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames().get().get("tour")
            .authorizedOperations());
        say("describeTopics unknown", () -> admin.describeTopics(List.of("nobody")).allTopicNames().get());
        say("describeTopics by id", () -> admin.describeTopics(TopicCollection.ofTopicIds(List.of(id("tour"))))
            .allTopicIds().get().values());
        say("describeTopics unknown id", () ->
            admin.describeTopics(TopicCollection.ofTopicIds(List.of(new Uuid(1, 2)))).allTopicIds().get());
        say("createPartitions", () -> admin.createPartitions(Map.of("tour", NewPartitions.increaseTo(3))).all().get());
        say("createPartitions less", () ->
            admin.createPartitions(Map.of("tour", NewPartitions.increaseTo(1))).all().get());
        say("createPartitions assigned", () -> admin.createPartitions(Map.of("tour-assigned",
            NewPartitions.increaseTo(3, List.of(List.of(1))))).all().get());
        settle("tour", "tour-assigned");
    }

    private void records() throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap);
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int number = 0; number < 10; number++) {
                producer.send(new ProducerRecord<>("tour", 0, START + number, "key", "value " + number)).get();
            }
        }
        for (var spec : new TreeMap<>(Map.of("earliest", OffsetSpec.earliest(), "latest", OffsetSpec.latest(),
                "maxTimestamp", OffsetSpec.maxTimestamp(), "time", OffsetSpec.forTimestamp(START + 4),
                "later", OffsetSpec.forTimestamp(START + 999), "earliestLocal", OffsetSpec.earliestLocal()))
                .entrySet()) {
            say("listOffsets " + spec.getKey(), () -> {
                var found = admin.listOffsets(Map.of(FIRST, spec.getValue())).partitionResult(FIRST).get();
                return found.offset() + " " + (found.timestamp() < 0 ? -1 : found.timestamp() - START) + " " + found.leaderEpoch();
            });
        }
        say("deleteRecords", () -> admin.deleteRecords(Map.of(FIRST, RecordsToDelete.beforeOffset(4))).all().get());
        say("deleteRecords beyond", () ->
            admin.deleteRecords(Map.of(FIRST, RecordsToDelete.beforeOffset(99))).all().get());
        say("describeProducers", () -> {
            var states = admin.describeProducers(List.of(FIRST)).all().get().get(FIRST).activeProducers();
            return states.stream().map(state -> state.producerEpoch() + " " + state.lastSequence() + " "
                + state.currentTransactionStartOffset()).toList();
        });
    }

    private void configs() throws Exception {
        var topic = new ConfigResource(ConfigResource.Type.TOPIC, "tour");
        var broker = new ConfigResource(ConfigResource.Type.BROKER, "1");
        var all = new ConfigResource(ConfigResource.Type.BROKER, "");
        var group = new ConfigResource(ConfigResource.Type.GROUP, "tour-group");
        var metrics = new ConfigResource(ConfigResource.Type.CLIENT_METRICS, "tour-metrics");
        for (var change : List.of(Map.of("retention.ms", "77777777"), Map.of("retention.ms", "soon"), Map.of("nonsense", "1"))) {
            say("incrementalAlterConfigs topic " + change, () -> alter(topic, change, AlterConfigOp.OpType.SET));
        }
        say("incrementalAlterConfigs append", () ->
            alter(topic, Map.of("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND));
        say("incrementalAlterConfigs subtract", () ->
            alter(topic, Map.of("cleanup.policy", "delete"), AlterConfigOp.OpType.SUBTRACT));
        say("incrementalAlterConfigs append to a number", () ->
            alter(topic, Map.of("retention.ms", "1"), AlterConfigOp.OpType.APPEND));
        say("describeConfigs topic", () -> settings(topic, "retention.ms", "cleanup.policy", "compression.type"));
        say("incrementalAlterConfigs delete", () ->
            alter(topic, Map.of("retention.ms", ""), AlterConfigOp.OpType.DELETE));
        say("describeConfigs topic after", () -> settings(topic, "retention.ms"));
        say("incrementalAlterConfigs broker", () ->
            alter(broker, Map.of("log.retention.ms", "604800001"), AlterConfigOp.OpType.SET));
        say("incrementalAlterConfigs all brokers", () ->
            alter(all, Map.of("log.retention.ms", "604800002"), AlterConfigOp.OpType.SET));
        say("describeConfigs inherited", () -> settings(topic, "retention.ms"));
        say("incrementalAlterConfigs broker back", () ->
            alter(broker, Map.of("log.retention.ms", ""), AlterConfigOp.OpType.DELETE));
        say("describeConfigs inherited from all", () -> settings(topic, "retention.ms"));
        say("incrementalAlterConfigs all brokers back", () ->
            alter(all, Map.of("log.retention.ms", ""), AlterConfigOp.OpType.DELETE));
        say("describeConfigs unknown topic", () -> settings(new ConfigResource(ConfigResource.Type.TOPIC, "nobody")));
        say("incrementalAlterConfigs group", () ->
            alter(group, Map.of("consumer.session.timeout.ms", "50000"), AlterConfigOp.OpType.SET));
        say("incrementalAlterConfigs client metrics", () ->
            alter(metrics, Map.of("interval.ms", "5000"), AlterConfigOp.OpType.SET));
        say("describeConfigs group", () -> settings(group, "consumer.session.timeout.ms"));
        say("describeConfigs client metrics", () -> settings(metrics, "interval.ms"));
        say("listConfigResources", () -> admin.listConfigResources(Set.of(ConfigResource.Type.CLIENT_METRICS,
            ConfigResource.Type.GROUP), new ListConfigResourcesOptions()).all().get());
    }

    private void groups() throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "group.id", "tour-group",
            "auto.offset.reset", "earliest", "client.id", "guest", "group.protocol", "classic");
        say("listConsumerGroupOffsets unknown", () ->
            admin.listConsumerGroupOffsets("nobody").partitionsToOffsetAndMetadata().get());
        say("describeConsumerGroups unknown", () -> admin.describeConsumerGroups(List.of("nobody")).all().get());
        say("describeClassicGroups unknown", () -> admin.describeClassicGroups(List.of("nobody")).all().get());
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("tour"));
            int found = 0;
            for (int polls = 0; found < 6 && polls < 600; polls++) {
                found += consumer.poll(Duration.ofMillis(200)).count();
            }
            System.out.println(number + " records after those that were deleted: " + found);
            consumer.commitSync();
            ConsumerGroupMetadata metadata = consumer.groupMetadata();
            say("describeConsumerGroups", () -> {
                var described = admin.describeConsumerGroups(List.of("tour-group")).all().get().get("tour-group");
                var members = described.members().stream().map(member -> member.clientId() + " " + member.host() + " "
                    + places(member.assignment().topicPartitions()) + " "
                    + member.consumerId().equals(metadata.memberId())).toList();
                return described.groupState() + " " + described.type() + " " + described.partitionAssignor() + " "
                    + described.isSimpleConsumerGroup() + " " + members;
            });
            say("deleteConsumerGroups live", () -> admin.deleteConsumerGroups(List.of("tour-group")).all().get());
            say("alterConsumerGroupOffsets live", () -> admin.alterConsumerGroupOffsets("tour-group",
                Map.of(FIRST, new OffsetAndMetadata(5))).all().get());
            say("deleteConsumerGroupOffsets live", () ->
                admin.deleteConsumerGroupOffsets("tour-group", Set.of(FIRST)).all().get());
            say("removeMembersFromConsumerGroup", () -> admin.removeMembersFromConsumerGroup("tour-group",
                new RemoveMembersFromConsumerGroupOptions()).all().get());
        }
        say("listConsumerGroupOffsets", () ->
            admin.listConsumerGroupOffsets("tour-group").partitionsToOffsetAndMetadata().get());
        say("alterConsumerGroupOffsets", () -> admin.alterConsumerGroupOffsets("tour-group",
            Map.of(FIRST, new OffsetAndMetadata(7, Optional.of(0), "note"))).all().get());
        say("alterConsumerGroupOffsets unknown topic", () -> admin.alterConsumerGroupOffsets("tour-group",
            Map.of(new TopicPartition("nobody", 0), new OffsetAndMetadata(1))).all().get());
        say("alterConsumerGroupOffsets new group", () -> admin.alterConsumerGroupOffsets("tour-made",
            Map.of(FIRST, new OffsetAndMetadata(2))).all().get());
        say("listConsumerGroupOffsets altered", () ->
            admin.listConsumerGroupOffsets("tour-group").partitionsToOffsetAndMetadata().get());
        say("deleteConsumerGroupOffsets", () ->
            admin.deleteConsumerGroupOffsets("tour-group", Set.of(FIRST)).all().get());
        say("listGroups", () -> admin.listGroups().all().get().stream().filter(one -> one.groupId().startsWith("tour"))
            .toList());
        say("listGroups empty", () -> admin.listGroups(new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY)))
            .all().get().stream().filter(one -> one.groupId().startsWith("tour")).toList());
        say("listGroups consumer type", () -> admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.CONSUMER)))
            .all().get().stream().filter(one -> one.groupId().startsWith("tour")).toList());
        say("describeStreamsGroups", () -> admin.describeStreamsGroups(List.of("tour-streams")).all().get());
        say("deleteConsumerGroups", () -> admin.deleteConsumerGroups(List.of("tour-group", "tour-made")).all().get());
        say("deleteConsumerGroups again", () -> admin.deleteConsumerGroups(List.of("tour-group")).all().get());
    }

    private void shares() throws Exception {
        var group = new ConfigResource(ConfigResource.Type.GROUP, "tour-shared");
        var asked = Map.of("tour-shared", new ListShareGroupOffsetsSpec());
        say("describeShareGroups unknown", () -> admin.describeShareGroups(List.of("tour-shared")).all().get());
        say("listShareGroupOffsets unknown", () -> admin.listShareGroupOffsets(asked).all().get());
        say("incrementalAlterConfigs share group", () ->
            alter(group, Map.of("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET));
        say("describeConfigs share group", () -> settings(group, "share.auto.offset.reset",
            "share.record.lock.duration.ms", "share.session.timeout.ms", "share.isolation.level"));
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "group.id", "tour-shared",
            "client.id", "guest", "share.acknowledgement.mode", "explicit");
        try (var consumer = new KafkaShareConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("tour"));
            say("share records", () -> {
                int found = 0;
                for (int polls = 0; found < 6 && polls < 600; polls++) {
                    var records = consumer.poll(Duration.ofMillis(200));
                    records.forEach(consumer::acknowledge);
                    found += records.count();
                    consumer.commitSync();
                }
                return found;
            });
            say("describeShareGroups", () -> {
                var described = admin.describeShareGroups(List.of("tour-shared"),
                    new DescribeShareGroupsOptions().includeAuthorizedOperations(true)).all().get().get("tour-shared");
                var members = described.members().stream().map(member -> member.clientId() + " " + member.host() + " "
                    + places(member.assignment().topicPartitions())).toList();
                return described.groupState() + " " + members + " " + show(described.authorizedOperations());
            });
            say("deleteShareGroups live", () -> admin.deleteShareGroups(List.of("tour-shared")).all().get());
            say("alterShareGroupOffsets live", () ->
                admin.alterShareGroupOffsets("tour-shared", Map.of(FIRST, 5L)).all().get());
            say("deleteShareGroupOffsets live", () ->
                admin.deleteShareGroupOffsets("tour-shared", Set.of("tour")).all().get());
        }
        say("describeShareGroups empty", () -> {
            var described = admin.describeShareGroups(List.of("tour-shared")).all().get().get("tour-shared");
            return described.groupState() + " " + described.members().size();
        });
        say("listGroups share type", () -> admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.SHARE)))
            .all().get().stream().filter(one -> one.groupId().startsWith("tour")).toList());
        say("listShareGroupOffsets", () -> admin.listShareGroupOffsets(asked).all().get());
        say("alterShareGroupOffsets", () ->
            admin.alterShareGroupOffsets("tour-shared", Map.of(FIRST, 5L)).all().get());
        say("alterShareGroupOffsets unknown topic", () -> admin.alterShareGroupOffsets("tour-shared",
            Map.of(new TopicPartition("nobody", 0), 1L)).all().get());
        say("listShareGroupOffsets altered", () -> admin.listShareGroupOffsets(asked).all().get());
        say("deleteShareGroupOffsets", () ->
            admin.deleteShareGroupOffsets("tour-shared", Set.of("tour")).all().get());
        say("deleteShareGroupOffsets unknown topic", () ->
            admin.deleteShareGroupOffsets("tour-shared", Set.of("nobody")).all().get());
        say("listShareGroupOffsets deleted", () -> admin.listShareGroupOffsets(asked).all().get());
        say("deleteShareGroups", () -> admin.deleteShareGroups(List.of("tour-shared")).all().get());
        say("deleteShareGroups again", () -> admin.deleteShareGroups(List.of("tour-shared")).all().get());
    }

    private void cluster() throws Exception {
        say("describeCluster", () -> {
            var described = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
            return described.nodes().get().size() + " " + described.controller().get().id() + " "
                + show(described.authorizedOperations().get());
        });
        say("describeFeatures", () -> admin.describeFeatures().featureMetadata().get().finalizedFeatures());
        say("updateFeatures nonsense", () -> admin.updateFeatures(Map.of("nonsense.version",
            new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.UPGRADE)), new UpdateFeaturesOptions()).all().get());
        say("describeLogDirs", () -> {
            var found = admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1);
            return found.values().stream().flatMap(one -> one.replicaInfos().keySet().stream())
                .filter(place -> place.topic().startsWith("tour")).map(Object::toString).collect(Collectors.toSet());
        });
        var replica = new TopicPartitionReplica("tour", 0, 1);
        say("describeReplicaLogDirs", () ->
            admin.describeReplicaLogDirs(List.of(replica)).all().get().get(replica).getFutureReplicaLogDir());
        say("alterReplicaLogDirs", () -> admin.alterReplicaLogDirs(Map.of(replica, "/nowhere")).all().get());
        say("electLeaders", () -> admin.electLeaders(ElectionType.PREFERRED, Set.of(FIRST)).partitions().get());
        say("electLeaders unknown", () ->
            admin.electLeaders(ElectionType.PREFERRED, Set.of(new TopicPartition("nobody", 0))).partitions().get());
        say("alterPartitionReassignments same", () -> admin.alterPartitionReassignments(
            Map.of(FIRST, Optional.of(new NewPartitionReassignment(List.of(1))))).all().get());
        say("alterPartitionReassignments unknown broker", () -> admin.alterPartitionReassignments(
            Map.of(FIRST, Optional.of(new NewPartitionReassignment(List.of(7))))).all().get());
        say("alterPartitionReassignments cancel", () ->
            admin.alterPartitionReassignments(Map.of(FIRST, Optional.empty())).all().get());
        say("listPartitionReassignments", () -> admin.listPartitionReassignments().reassignments().get());
        say("unregisterBroker", () -> admin.unregisterBroker(9).all().get());
    }

    private void quotasAndUsers() throws Exception {
        var entity = new ClientQuotaEntity(Map.of("user", "ann", "client-id", "app"));
        var filter = ClientQuotaFilter.contains(List.of(ClientQuotaFilterComponent.ofEntity("user", "ann")));
        say("alterClientQuotas", () -> quota(entity, "producer_byte_rate", 1000.0));
        say("alterClientQuotas unknown", () -> quota(entity, "nonsense", 1.0));
        say("alterClientQuotas ip", () ->
            quota(new ClientQuotaEntity(Map.of("ip", "10.0.0.1")), "connection_creation_rate", 5.0));
        say("describeClientQuotas", () -> admin.describeClientQuotas(filter).entities().get());
        say("describeClientQuotas all", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get());
        say("alterClientQuotas removed", () -> quota(entity, "producer_byte_rate", null));
        say("describeClientQuotas removed", () -> admin.describeClientQuotas(filter).entities().get());
        say("alterUserScramCredentials", () -> admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("ann",
            new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "secret"))).all().get());
        say("alterUserScramCredentials too few", () -> admin.alterUserScramCredentials(List.of(
            new UserScramCredentialUpsertion("ann", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 10), "secret")))
            .all().get());
        say("describeUserScramCredentials", () -> admin.describeUserScramCredentials().all().get());
        say("describeUserScramCredentials unknown", () ->
            admin.describeUserScramCredentials(List.of("nobody")).description("nobody").get());
        say("alterUserScramCredentials deleted", () -> admin.alterUserScramCredentials(List.of(
            new UserScramCredentialDeletion("ann", ScramMechanism.SCRAM_SHA_256))).all().get());
        say("alterUserScramCredentials deleted again", () -> admin.alterUserScramCredentials(List.of(
            new UserScramCredentialDeletion("ann", ScramMechanism.SCRAM_SHA_256))).all().get());
        say("createDelegationToken", () -> admin.createDelegationToken().delegationToken().get());
        say("describeDelegationToken", () -> admin.describeDelegationToken().delegationTokens().get());
    }

    private void acls() throws Exception {
        var binding = new AclBinding(new ResourcePattern(ResourceType.TOPIC, "tour", PatternType.PREFIXED),
            new AccessControlEntry("User:ann", "*", AclOperation.READ, AclPermissionType.ALLOW));
        say("createAcls", () -> admin.createAcls(List.of(binding)).all().get());
        say("describeAcls", () -> admin.describeAcls(AclBindingFilter.ANY).values().get());
        say("deleteAcls", () -> admin.deleteAcls(List.of(binding.toFilter())).all().get());
    }

    private void transactions() throws Exception {
        say("listTransactions", () -> admin.listTransactions().all().get());
        say("describeTransactions unknown", () -> admin.describeTransactions(List.of("nobody")).all().get());
        say("fenceProducers", () -> admin.fenceProducers(List.of("tour-producer")).all().get());
        say("listTransactions fenced", () -> admin.listTransactions().all().get().stream()
            .map(one -> one.transactionalId() + " " + one.state()).toList());
        say("abortTransaction", () -> admin.abortTransaction(new AbortTransactionSpec(FIRST, 1, (short) 0, 0)).all().get());
    }

    private void deletion() throws Exception {
        say("deleteTopics by id", () ->
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id("tour-assigned")))).all().get());
        say("deleteTopics", () -> admin.deleteTopics(List.of("tour", "tour-compacted")).all().get());
        say("deleteTopics unknown", () -> admin.deleteTopics(List.of("nobody")).all().get());
        say("deleteTopics unknown id", () ->
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(new Uuid(1, 2)))).all().get());
    }

    private Object alter(ConfigResource resource, Map<String, String> change, AlterConfigOp.OpType how)
            throws Exception {
        List<AlterConfigOp> changes = new ArrayList<>();
        change.forEach((name, value) -> changes.add(new AlterConfigOp(new ConfigEntry(name, value), how)));
        return admin.incrementalAlterConfigs(Map.of(resource, changes)).all().get();
    }

    private Object settings(ConfigResource resource, String... names) throws Exception {
        var found = admin.describeConfigs(List.of(resource), new DescribeConfigsOptions().includeSynonyms(true))
            .all().get().get(resource);
        Map<String, String> shown = new TreeMap<>();
        for (String name : names) {
            var entry = found.get(name);
            shown.put(name, entry == null ? "none" : entry.value() + " " + entry.source() + " " + entry.type() + " "
                + entry.isReadOnly() + " " + entry.synonyms());
        }
        return shown;
    }

    private Object quota(ClientQuotaEntity entity, String name, Double value) throws Exception {
        return admin.alterClientQuotas(List.of(
            new ClientQuotaAlteration(entity, List.of(new ClientQuotaAlteration.Op(name, value))))).all().get();
    }

    private Uuid id(String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).topicId();
    }

    private static List<String> names(Collection<String> topics) {
        return topics.stream().filter(name -> name.startsWith("tour")).sorted().toList();
    }

    private static List<String> places(Collection<TopicPartition> places) {
        return places.stream().map(Object::toString).sorted().toList();
    }

    /** Waits, but not for long, until the topics have leaders. */
    private void settle(String... topics) throws Exception {
        for (int tries = 0; tries < TRIES; tries++, Thread.sleep(20)) {
            try {
                boolean led = admin.describeTopics(List.of(topics)).allTopicNames().get().values().stream()
                    .flatMap(topic -> topic.partitions().stream()).allMatch(one -> one.leader() != null);
                if (led) {
                    return;
                }
            } catch (ExecutionException unknown) {
                // Made, and not known to this broker yet.
            }
        }
    }

    /** Prints one line: what was asked, and the answer or the error. */
    private void say(String what, Callable<Object> ask) throws Exception {
        boolean looks = what.startsWith("describe") || what.startsWith("list");
        for (int tries = 1; ; tries++) {
            String answer = answer(ask);
            String theirs = other.exchange(answer, 300, TimeUnit.SECONDS);
            if (!looks || alike(answer, theirs) || tries == TRIES) {
                System.out.println(number + " " + what + ": " + answer);
                return;
            }
            Thread.sleep(20);
        }
    }

    /** Whether there is no use in asking again: the answers or the kinds of the errors are the same, or one is not served. */
    private static boolean alike(String one, String other) {
        return kind(one).equals(kind(other)) || (one + other).contains("UnsupportedVersionException");
    }

    private static String kind(String answer) {
        return answer.startsWith("! ") ? answer.split(":")[0] : answer;
    }

    private String answer(Callable<Object> ask) {
        try {
            return plain(show(ask.call()));
        } catch (ExecutionException error) {
            return plain("! " + error.getCause().getClass().getSimpleName() + ": " + error.getCause().getMessage());
        } catch (Exception error) {
            return plain("! " + error.getClass().getSimpleName() + ": " + error.getMessage());
        }
    }

    private static String show(Object value) {
        if (value instanceof Map<?, ?> map) {
            Map<String, String> sorted = new TreeMap<>();
            map.forEach((key, one) -> sorted.put(show(key), show(one)));
            return sorted.toString();
        }
        if (value instanceof Collection<?> all) {
            return all.stream().map(AdminTour::show).sorted().toList().toString();
        }
        return String.valueOf(value);
    }

    /** Without addresses and ids. */
    private String plain(String answer) {
        return answer.replace("\n", " ").replace(bootstrap, "<broker>")
            .replaceAll("(topicId|topic id|id)[ =:]+[A-Za-z0-9_-]{22}", "$1=<id>");
    }
}
