package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
)

// kafkaGoSuite is what segmentio's kafka-go does with a broker, checked by itself: its Conn with the oldest versions that
// it knows, its Writer and Reader, a group, and its Client.
func kafkaGoSuite(bootstrap, prefix string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	topic := prefix + "-main"
	kafkaGoTopics(ctx, bootstrap, topic, prefix+"-gone")
	kafkaGoConn(ctx, bootstrap, prefix+"-conn")

	var expected []kafka.Message
	for _, codec := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		for _, acks := range []kafka.RequiredAcks{kafka.RequireNone, kafka.RequireOne, kafka.RequireAll} {
			at := len(expected)
			batch := []kafka.Message{
				kafkaGoRecord([]byte("key"), []byte(codec.String()), at),
				kafkaGoRecord(nil, []byte("no key"), at+1),
				kafkaGoRecord([]byte("tombstone"), nil, at+2),
			}
			batch[0].Headers = []kafka.Header{{Key: "same", Value: []byte("1")}, {Key: "same", Value: []byte("2")}}
			err := kafkaGoWrite(ctx, bootstrap, topic, codec, acks, batch)
			expect(err == nil, codec.String(), acks, err)
			expected = append(expected, batch...)
			// Without an answer the next connection could come first.
			kafkaGoAwaitEnd(ctx, bootstrap, topic, int64(len(expected)))
		}
	}
	for at, theirs := range kafkaGoRead(ctx, bootstrap, topic, 0, len(expected)) {
		ours := expected[at]
		expect(same(ours.Key, theirs.Key) && same(ours.Value, theirs.Value), "key and value come back", at, theirs)
		expect(ours.Time.Equal(theirs.Time) && theirs.Offset == int64(at), "so do time and place", at, theirs)
		expect(len(ours.Headers) == len(theirs.Headers), "and headers", at, theirs)
		for number, header := range ours.Headers {
			found := theirs.Headers[number]
			expect(header.Key == found.Key && same(header.Value, found.Value), "each of them", at, found)
		}
	}
	expect(kafkaGoRead(ctx, bootstrap, topic, 7, 1)[0].Offset == 7, "reading starts where it is told to")
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{bootstrap}, Topic: topic})
	err := reader.SetOffsetAt(ctx, base.Add(7*time.Millisecond))
	expect(err == nil && reader.Offset() == 7, "the time of a record is found", reader.Offset(), err)
	expect(reader.Close() == nil, "a reader closes")

	most := make([]byte, limitBytes-200)
	large := []kafka.Message{kafkaGoRecord(nil, most, 0)}
	err = kafkaGoWrite(ctx, bootstrap, topic, 0, kafka.RequireAll, large)
	expect(err == nil, "a record up to the limit is taken", err)
	large[0].Value = make([]byte, limitBytes)
	err = kafkaGoWrite(ctx, bootstrap, topic, 0, kafka.RequireAll, large)
	var each kafka.WriteErrors
	refused := errors.As(err, &each) && errors.Is(each[0], kafka.MessageSizeTooLarge)
	expect(refused || errors.Is(err, kafka.MessageSizeTooLarge), "a record beyond the limit is not", err)
	made := []kafka.Message{kafkaGoRecord(nil, []byte("first"), 0)}
	// A topic that is being made is not there for it yet.
	for err = error(kafka.UnknownTopicOrPartition); errors.Is(err, kafka.UnknownTopicOrPartition); {
		err = kafkaGoWrite(ctx, bootstrap, prefix+"-made", 0, kafka.RequireAll, made)
	}
	expect(err == nil && len(kafkaGoRead(ctx, bootstrap, prefix+"-made", 0, 1)) == 1, "the first record makes it", err)
	kafkaGoGroup(ctx, bootstrap, prefix+"-group", topic, len(expected))
}

func kafkaGoClient(bootstrap string) *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(bootstrap), Timeout: 3 * time.Minute}
}

func kafkaGoTopics(ctx context.Context, bootstrap, topic, gone string) {
	client := kafkaGoClient(bootstrap)
	create := func(name string, settings ...kafka.ConfigEntry) error {
		wanted := kafka.TopicConfig{Topic: name, NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: settings}
		made, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{wanted}})
		expect(err == nil, "a topic is asked for", name, err)
		return made.Errors[name]
	}
	err := create(topic, kafka.ConfigEntry{ConfigName: "retention.ms", ConfigValue: "-1"})
	expect(err == nil, "a topic is created", err)
	expect(errors.Is(create(topic), kafka.TopicAlreadyExists), "and not twice")
	err = create(gone, kafka.ConfigEntry{ConfigName: "retention.ms", ConfigValue: "soon"})
	expect(errors.Is(err, kafka.InvalidConfiguration), "nor with a value that cannot be", err)
	grown, err := client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 2}},
	})
	expect(err == nil && grown.Errors[topic] == nil, "it grows", grown, err)
	// It answers from what it knows, and looks again now and then.
	for partitions := 1; partitions != 2; {
		described, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		expect(err == nil, "its partitions are known", described, err)
		partitions = len(described.Topics[0].Partitions)
		time.Sleep(20 * time.Millisecond)
	}
	altered, err := client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{
				{Name: "segment.bytes", Value: "2097152", ConfigOperation: kafka.ConfigOperationSet},
			},
		}},
	})
	expect(err == nil && altered.Resources[0].Error == nil, "a setting is changed", altered, err)
	configs, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{
			{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{"segment.bytes"}},
		},
		IncludeSynonyms: true,
	})
	expect(err == nil && len(configs.Resources[0].ConfigEntries) == 1, "and described", configs, err)
	expect(configs.Resources[0].ConfigEntries[0].ConfigValue == "2097152", "as it was set", configs)
	expect(create(gone) == nil, "another one is created")
	remove := func() error {
		removed, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{gone}})
		expect(err == nil, "a topic is to be deleted", err)
		return removed.Errors[gone]
	}
	expect(remove() == nil, "and deleted")
	expect(errors.Is(remove(), kafka.UnknownTopicOrPartition), "but not twice")
	given, err := client.InitProducerID(ctx, &kafka.InitProducerIDRequest{TransactionTimeoutMs: 1000})
	expect(err == nil && given.Error == nil && given.Producer.ProducerID >= 0, "a producer id is given", *given, err)
}

// The Conn takes the highest of a few old versions that it knows.
func kafkaGoConn(ctx context.Context, bootstrap, topic string) {
	first, err := kafka.DialContext(ctx, "tcp", bootstrap)
	expect(err == nil, "a connection", err)
	defer first.Close()
	_, err = first.ApiVersions()
	expect(err == nil, "it learns what is served", err)
	brokers, err := first.Brokers()
	expect(err == nil && len(brokers) == 1, "and by whom", brokers, err)
	controller, err := first.Controller()
	expect(err == nil && controller.Port == brokers[0].Port, "and who controls", controller, err)
	err = first.CreateTopics(kafka.TopicConfig{Topic: topic, NumPartitions: 2, ReplicationFactor: 1})
	expect(err == nil, "it makes a topic", err)
	partitions, err := first.ReadPartitions(topic)
	for errors.Is(err, kafka.UnknownTopicOrPartition) {
		time.Sleep(20 * time.Millisecond)
		partitions, err = first.ReadPartitions(topic)
	}
	expect(err == nil && len(partitions) == 2 && partitions[1].Leader.Port == brokers[0].Port, "it finds it", partitions, err)

	leader, err := kafka.DialLeader(ctx, "tcp", bootstrap, topic, 1)
	expect(err == nil, "a connection to a partition", err)
	defer leader.Close()
	expect(leader.SetDeadline(time.Now().Add(5*time.Minute)) == nil, "which waits for five minutes")
	_, err = leader.WriteMessages(kafkaGoRecord([]byte("a"), []byte("1"), 0), kafkaGoRecord([]byte("b"), []byte("2"), 1))
	expect(err == nil, "it writes", err)
	for at, codec := range []kafka.Compression{kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		_, partition, offset, _, err := leader.WriteCompressedMessagesAt(codec.Codec(), kafkaGoRecord(nil, []byte("3"), 2+at))
		expect(err == nil && partition == 1 && offset == int64(2+at), "compressed too", codec, partition, offset, err)
	}
	start, end, err := leader.ReadOffsets()
	expect(err == nil && start == 0 && end == 6, "it finds both ends", start, end, err)
	found, err := leader.ReadOffset(base.Add(time.Millisecond))
	expect(err == nil && found == 1, "and a time", found, err)
	at, err := leader.Seek(1, kafka.SeekAbsolute)
	expect(err == nil && at == 1, "it seeks", at, err)
	batch := leader.ReadBatch(1, 1<<20)
	count := 0
	for ; ; count++ {
		message, err := batch.ReadMessage()
		if err != nil {
			expect(errors.Is(err, io.EOF), "a batch ends", err)
			break
		}
		expect(message.Offset == int64(1+count), "in order", message.Offset)
	}
	expect(count == 5 && batch.Close() == nil && batch.HighWaterMark() == 6, "with all records", count)
	expect(first.DeleteTopics(topic) == nil, "it deletes the topic")
}

// Two readers share the topic, commit, leave; what they committed is where the next one goes on.
func kafkaGoGroup(ctx context.Context, bootstrap, group, topic string, count int) {
	client := kafkaGoClient(bootstrap)
	join := func() *kafka.Reader {
		return kafka.NewReader(kafka.ReaderConfig{
			Brokers: []string{bootstrap}, GroupID: group, Topic: topic, StartOffset: kafka.FirstOffset,
			MaxWait: 100 * time.Millisecond, HeartbeatInterval: 300 * time.Millisecond, SessionTimeout: 30 * time.Second,
			JoinGroupBackoff: 100 * time.Millisecond,
		})
	}
	reader := join()
	for number := 0; number < 10; number++ {
		message, err := reader.FetchMessage(ctx)
		expect(err == nil && message.Offset == int64(number), "a member reads from the start", number, message, err)
		expect(reader.CommitMessages(ctx, message) == nil, "and commits each record")
	}
	described, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
	expect(err == nil && described.Groups[0].GroupState == "Stable", "the group is described", described, err)
	member := described.Groups[0].Members[0]
	expect(len(member.MemberAssignments.Topics[0].Partitions) == 2, "with what its member has", member)
	listed, err := client.ListGroups(ctx, &kafka.ListGroupsRequest{})
	expect(err == nil && len(listed.Groups) > 0, "and listed", listed, err)
	expect(reader.Close() == nil, "a member leaves")
	fetched := func() int64 {
		topics := map[string][]int{topic: {0}}
		found, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: topics})
		expect(err == nil && found.Error == nil, "offsets are fetched", found, err)
		return found.Topics[topic][0].CommittedOffset
	}
	expect(fetched() == 10, "the commits are there", fetched())
	one, other := join(), join()
	for number := 10; number < count; number++ {
		// Whichever of the two has the partition.
		found := make(chan kafka.Message, 2)
		short, stop := context.WithCancel(ctx)
		for _, reader := range []*kafka.Reader{one, other} {
			go func() {
				if message, err := reader.FetchMessage(short); err == nil {
					found <- message
				}
			}()
		}
		message := <-found
		stop()
		expect(message.Offset == int64(number), "the next two go on there", number, message.Offset)
		if number == 10 {
			break
		}
	}
	expect(one.Close() == nil && other.Close() == nil, "they leave")
	committed, err := client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: 0, Offset: 3}}},
	})
	expect(err == nil && committed.Topics[topic][0].Error == nil, "an admin sets an offset", committed, err)
	expect(fetched() == 3, "which counts", fetched())
	forgotten, err := client.OffsetDelete(ctx, &kafka.OffsetDeleteRequest{
		GroupID: group, Topics: map[string][]int{topic: {0}},
	})
	expect(err == nil && forgotten.Error == nil && forgotten.Topics[topic][0].Error == nil, "it is deleted", forgotten, err)
	expect(fetched() == -1, "and gone", fetched())
	deleted, err := client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
	expect(err == nil && deleted.Errors[group] == nil, "so is the group", deleted, err)
}

func kafkaGoRecord(key, value []byte, at int) kafka.Message {
	return kafka.Message{Key: key, Value: value, Time: base.Add(time.Duration(at) * time.Millisecond)}
}

type firstPartition struct{}

func (firstPartition) Balance(_ kafka.Message, partitions ...int) int { return partitions[0] }

func kafkaGoWrite(
	ctx context.Context, bootstrap, topic string, codec kafka.Compression, acks kafka.RequiredAcks, batch []kafka.Message,
) error {
	writer := &kafka.Writer{
		Addr: kafka.TCP(bootstrap), Topic: topic, Balancer: firstPartition{}, RequiredAcks: acks, Compression: codec,
		BatchBytes: 10 << 20, BatchTimeout: 5 * time.Millisecond, AllowAutoTopicCreation: true, MaxAttempts: 10,
		WriteBackoffMin: 50 * time.Millisecond, Transport: &kafka.Transport{MetadataTTL: 200 * time.Millisecond},
	}
	err := writer.WriteMessages(ctx, batch...)
	return errors.Join(err, writer.Close())
}

func kafkaGoAwaitEnd(ctx context.Context, bootstrap, topic string, end int64) {
	client := kafkaGoClient(bootstrap)
	for {
		found, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
			Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(0), kafka.FirstOffsetOf(0)}},
		})
		expect(err == nil && found.Topics[topic][0].Error == nil, "the end is found", found, err)
		if found.Topics[topic][0].LastOffset == end {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func kafkaGoRead(ctx context.Context, bootstrap, topic string, offset int64, count int) []kafka.Message {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{bootstrap}, Topic: topic, MaxWait: 100 * time.Millisecond, MaxBytes: 10 << 20,
	})
	defer reader.Close()
	expect(reader.SetOffset(offset) == nil, "a reader is told where to start")
	var found []kafka.Message
	for len(found) < count {
		message, err := reader.ReadMessage(ctx)
		expect(err == nil, "records come", len(found), count, err)
		found = append(found, message)
	}
	return found
}
