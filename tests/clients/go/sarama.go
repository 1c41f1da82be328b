package main

import (
	"bytes"
	"errors"
	"time"

	"github.com/IBM/sarama"
)

func saramaConfig(codec sarama.CompressionCodec, acks sarama.RequiredAcks, idempotent bool) *sarama.Config {
	config := saramaSettings()
	config.Version = sarama.MaxVersion
	config.Producer.Compression = codec
	config.Producer.RequiredAcks = acks
	config.Producer.Idempotent = idempotent
	config.Producer.Return.Successes = true
	config.Producer.MaxMessageBytes = 10 << 20
	config.Producer.Retry.Max = 10
	config.Metadata.Retry.Max = 10
	config.Consumer.Group.Session.Timeout = 30 * time.Second
	config.Producer.Partitioner = sarama.NewManualPartitioner
	if idempotent {
		config.Net.MaxOpenRequests = 1
	}
	return config
}

// saramaSuite is what Sarama does with a broker, checked by itself.
func saramaSuite(bootstrap, prefix string) {
	config := saramaConfig(sarama.CompressionNone, sarama.WaitForAll, false)
	client, err := sarama.NewClient([]string{bootstrap}, config)
	expect(err == nil, "a client", err)
	defer client.Close()
	topic, gone, compacted := prefix+"-main", prefix+"-gone", prefix+"-compacted"
	saramaTopics(client, topic, gone, compacted)

	var expected []*sarama.ProducerMessage
	for _, codec := range []sarama.CompressionCodec{
		sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4,
		sarama.CompressionZSTD,
	} {
		for _, acks := range []sarama.RequiredAcks{sarama.NoResponse, sarama.WaitForLocal, sarama.WaitForAll} {
			for _, idempotent := range []bool{false, true} {
				if idempotent && acks != sarama.WaitForAll {
					continue
				}
				at := len(expected)
				batch := []*sarama.ProducerMessage{
					saramaRecord(topic, []byte("key"), []byte(codec.String()), at),
					saramaRecord(topic, nil, []byte("no key"), at+1),
					saramaRecord(topic, []byte("tombstone"), nil, at+2),
				}
				batch[0].Headers = []sarama.RecordHeader{
					{Key: []byte("same"), Value: []byte("1")}, {Key: []byte("same"), Value: []byte("2")},
				}
				err := saramaProduce(bootstrap, saramaConfig(codec, acks, idempotent), batch)
				expect(err == nil, codec.String(), err)
				if acks == sarama.NoResponse {
					// Without an answer what the next connection brings could come first.
					saramaRead(client, topic, int64(at), len(batch))
				}
				expected = append(expected, batch...)
			}
		}
	}
	for at, theirs := range saramaRead(client, topic, 0, len(expected)) {
		ours := expected[at]
		key, value := saramaBytes(ours.Key), saramaBytes(ours.Value)
		expect(same(key, theirs.Key) && same(value, theirs.Value), "key and value come back", at, theirs)
		expect(ours.Timestamp.Equal(theirs.Timestamp) && theirs.Offset == int64(at), "so do time and place", at, theirs)
		expect(len(ours.Headers) == len(theirs.Headers), "and headers", at, theirs)
		for number, header := range ours.Headers {
			found := theirs.Headers[number]
			expect(bytes.Equal(header.Key, found.Key) && bytes.Equal(header.Value, found.Value), "each of them", at)
		}
	}
	for _, at := range []int{0, 7, len(expected) - 1} {
		found, err := client.GetOffset(topic, 0, base.UnixMilli()+int64(at))
		expect(err == nil && found == int64(at), "the time of a record is found", at, found, err)
	}
	end, err := client.GetOffset(topic, 0, sarama.OffsetNewest)
	expect(err == nil && end == int64(len(expected)), "the end is known", end, err)
	expect(saramaRead(client, topic, 7, 1)[0].Offset == 7, "reading starts where it is told to")

	most := make([]byte, limitBytes-200)
	err = saramaProduce(bootstrap, config, []*sarama.ProducerMessage{saramaRecord(topic, nil, most, 0)})
	expect(err == nil, "a record up to the limit is taken", err)
	large := []*sarama.ProducerMessage{saramaRecord(topic, nil, make([]byte, limitBytes), 0)}
	err = saramaProduce(bootstrap, config, large)
	expect(errors.Is(err, sarama.ErrMessageSizeTooLarge), "a record beyond the limit is not", err)
	err = saramaProduce(bootstrap, config, []*sarama.ProducerMessage{saramaRecord(compacted, nil, most[:9], 0)})
	expect(err != nil, "a compacted topic wants keys")
	made := []*sarama.ProducerMessage{saramaRecord(prefix+"-made", nil, most[:9], 0)}
	err = saramaProduce(bootstrap, config, made)
	expect(err == nil && len(saramaRead(client, prefix+"-made", 0, 1)) == 1, "the first record makes its topic", err)
}

func saramaTopics(client sarama.Client, topic, gone, compacted string) {
	// The admin shares the client, which is closed by whoever opened it.
	admin, err := sarama.NewClusterAdminFromClient(client)
	expect(err == nil, "an admin", err)
	forever, soon, segment, compact := "-1", "soon", "2097152", "compact"
	detail := func(name, value *string) *sarama.TopicDetail {
		made := &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: map[string]*string{}}
		if name != nil {
			made.ConfigEntries[*name] = value
		}
		return made
	}
	retention, cleanup := "retention.ms", "cleanup.policy"
	err = admin.CreateTopic(topic, detail(&retention, &forever), false)
	expect(err == nil, "a topic is created", err)
	err = admin.CreateTopic(topic, detail(nil, nil), false)
	expect(errors.Is(err, sarama.ErrTopicAlreadyExists), "and not twice", err)
	err = admin.CreateTopic(gone, detail(&retention, &soon), false)
	expect(errors.Is(err, sarama.ErrInvalidConfig), "nor with a value that cannot be", err)
	expect(admin.CreateTopic(compacted, detail(&cleanup, &compact), false) == nil, "a compacted topic is created")
	expect(admin.CreatePartitions(topic, 2, nil, false) == nil, "it grows")
	described, err := admin.DescribeTopics([]string{topic})
	expect(err == nil && len(described[0].Partitions) == 2, "to two partitions", err)
	change := map[string]sarama.IncrementalAlterConfigsEntry{
		"segment.bytes": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &segment},
	}
	err = admin.IncrementalAlterConfig(sarama.TopicResource, topic, change, false)
	expect(err == nil, "a setting is changed", err)
	names := []string{"segment.bytes"}
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: names})
	expect(err == nil && len(entries) == 1 && entries[0].Value == segment, "and read back", entries, err)
	expect(admin.CreateTopic(gone, detail(nil, nil), false) == nil, "another one is created")
	expect(admin.DeleteTopic(gone) == nil, "and deleted")
	expect(errors.Is(admin.DeleteTopic(gone), sarama.ErrUnknownTopicOrPartition), "but not twice")
}

func saramaRecord(topic string, key, value []byte, at int) *sarama.ProducerMessage {
	message := &sarama.ProducerMessage{Topic: topic, Timestamp: base.Add(time.Duration(at) * time.Millisecond)}
	if key != nil {
		message.Key = sarama.ByteEncoder(key)
	}
	if value != nil {
		message.Value = sarama.ByteEncoder(value)
	}
	return message
}

func saramaBytes(encoder sarama.Encoder) []byte {
	if encoder == nil {
		return nil
	}
	data, _ := encoder.Encode()
	return data
}

func saramaProduce(bootstrap string, config *sarama.Config, batch []*sarama.ProducerMessage) error {
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	if err := producer.SendMessages(batch); err != nil {
		var all sarama.ProducerErrors
		if errors.As(err, &all) {
			return all[0].Err
		}
		return err
	}
	return nil
}

func saramaRead(client sarama.Client, topic string, offset int64, count int) []*sarama.ConsumerMessage {
	consumer, err := sarama.NewConsumerFromClient(client)
	expect(err == nil, "a consumer", err)
	partition, err := consumer.ConsumePartition(topic, 0, offset)
	expect(err == nil, "a partition to read", err)
	defer partition.Close()
	var found []*sarama.ConsumerMessage
	for len(found) < count {
		select {
		case message := <-partition.Messages():
			found = append(found, message)
		case <-time.After(5 * time.Minute):
			fail("sarama: %d of %d came", len(found), count)
		}
	}
	return found
}
