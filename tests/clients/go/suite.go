package main

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const limitBytes = 1_048_588

var base = time.Now().Add(-time.Hour).Truncate(time.Millisecond)

func expect(condition bool, what string, found ...any) {
	if !condition {
		fail("%s: %v", what, found)
	}
}

// suite is what franz-go does with a broker, checked by itself.
func suite(bootstrap, prefix string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	client, err := kgo.NewClient(franzAt(bootstrap)...)
	expect(err == nil, "a client", err)
	defer client.Close()
	admin := kadm.NewClient(client)
	topic := prefix + "-main"
	topics(ctx, admin, topic, prefix+"-gone")

	var expected []*kgo.Record
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		for _, options := range [][]kgo.Opt{
			{kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite()},
			{kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()},
			{kgo.RequiredAcks(kgo.AllISRAcks()), kgo.DisableIdempotentWrite()},
			{},
		} {
			at := len(expected)
			batch := []*kgo.Record{
				record(topic, []byte("key"), []byte(name), at,
					kgo.RecordHeader{Key: "same", Value: []byte("1")}, kgo.RecordHeader{Key: "same", Value: []byte("2")},
					kgo.RecordHeader{Key: "none"}),
				record(topic, nil, []byte("no key"), at+1),
				record(topic, []byte("tombstone"), nil, at+2),
				record(topic, []byte{}, []byte{}, at+3),
			}
			err := produceAll(ctx, bootstrap, batch, append(options, kgo.ProducerBatchCompression(codec))...)
			expect(err == nil, name, err)
			// Without an answer, as the first of these, what the next connection brings could come first.
			read(ctx, bootstrap, topic, int64(at), len(batch))
			expected = append(expected, batch...)
		}
	}
	for at, theirs := range read(ctx, bootstrap, topic, 0, len(expected)) {
		ours := expected[at]
		expect(same(ours.Key, theirs.Key) && same(ours.Value, theirs.Value), "key and value come back", at, theirs)
		expect(ours.Timestamp.Equal(theirs.Timestamp) && theirs.Offset == int64(at), "so do time and place", at, theirs)
		expect(len(ours.Headers) == len(theirs.Headers), "and headers", at, theirs)
		for number, header := range ours.Headers {
			found := theirs.Headers[number]
			expect(header.Key == found.Key && same(header.Value, found.Value), "each of them", at, found)
		}
	}
	for _, at := range []int{0, 7, len(expected) - 1} {
		found, err := admin.ListOffsetsAfterMilli(ctx, base.UnixMilli()+int64(at), topic)
		expect(err == nil && found[topic][0].Offset == int64(at), "the time of a record is found", at, found)
	}
	expect(read(ctx, bootstrap, topic, 7, 1)[0].Offset == 7, "reading starts where it is told to")

	most := make([]byte, limitBytes-200)
	large := kgo.ProducerBatchMaxBytes(10 << 20)
	plain := kgo.ProducerBatchCompression(kgo.NoCompression())
	err = produceAll(ctx, bootstrap, []*kgo.Record{record(topic, nil, most, 0)}, large, plain)
	expect(err == nil, "a record up to the limit is taken", err)
	err = produceAll(ctx, bootstrap, []*kgo.Record{record(topic, nil, make([]byte, limitBytes), 0)}, large, plain)
	expect(errors.Is(err, kerr.MessageTooLarge), "a record beyond the limit is not", err)
	expect(bytes.Equal(read(ctx, bootstrap, topic, int64(len(expected)), 1)[0].Value, most), "it comes back")

	compacted := prefix + "-compacted"
	compact := "compact"
	_, err = admin.CreateTopic(ctx, 1, 1, map[string]*string{"cleanup.policy": &compact}, compacted)
	expect(err == nil, "a compacted topic is created", err)
	err = produceAll(ctx, bootstrap, []*kgo.Record{record(compacted, nil, most[:9], 0)})
	expect(errors.Is(err, kerr.InvalidRecord), "it wants keys", err)
	err = produceAll(ctx, bootstrap, []*kgo.Record{record(compacted, []byte("key"), most[:9], 0)})
	expect(err == nil, "and takes them", err)
	made := prefix + "-made"
	err = produceAll(ctx, bootstrap, []*kgo.Record{record(made, nil, most[:9], 0)}, kgo.AllowAutoTopicCreation())
	expect(err == nil && len(read(ctx, bootstrap, made, 0, 1)) == 1, "the first record makes its topic", err)
}

func topics(ctx context.Context, admin *kadm.Client, topic, gone string) {
	forever, soon, bytes := "-1", "soon", "2097152"
	_, err := admin.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": &forever}, topic)
	expect(err == nil, "a topic is created", err)
	_, err = admin.CreateTopic(ctx, 1, 1, nil, topic)
	expect(errors.Is(err, kerr.TopicAlreadyExists), "and not twice", err)
	_, err = admin.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": &soon}, gone)
	expect(errors.Is(err, kerr.InvalidConfig), "nor with a value that cannot be", err)
	grown, err := admin.UpdatePartitions(ctx, 2, topic)
	expect(err == nil && grown[topic].Err == nil, "it grows", err, grown)
	listed, err := admin.ListTopics(ctx, topic)
	expect(err == nil && len(listed[topic].Partitions) == 2, "to two partitions", err, listed)
	change := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "segment.bytes", Value: &bytes}}
	altered, err := admin.AlterTopicConfigs(ctx, change, topic)
	expect(err == nil && altered[0].Err == nil, "a setting is changed", err, altered)
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	expect(err == nil, "and read back", err)
	for _, config := range configs[0].Configs {
		expect(config.Key != "segment.bytes" || *config.Value == bytes, "as it was set", config)
	}
	_, err = admin.CreateTopic(ctx, 1, 1, nil, gone)
	expect(err == nil, "another one is created", err)
	deleted, err := admin.DeleteTopics(ctx, gone)
	expect(err == nil && deleted[gone].Err == nil, "and deleted", err, deleted)
	deleted, err = admin.DeleteTopics(ctx, gone)
	expect(err == nil && errors.Is(deleted[gone].Err, kerr.UnknownTopicOrPartition), "but not twice", err, deleted)
}

func record(topic string, key, value []byte, at int, headers ...kgo.RecordHeader) *kgo.Record {
	timestamp := base.Add(time.Duration(at) * time.Millisecond)
	return &kgo.Record{Topic: topic, Key: key, Value: value, Timestamp: timestamp, Headers: headers}
}

func produceAll(ctx context.Context, bootstrap string, batch []*kgo.Record, options ...kgo.Opt) error {
	options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	client, err := kgo.NewClient(franzAt(bootstrap, options...)...)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.ProduceSync(ctx, batch...).FirstErr()
}

func read(ctx context.Context, bootstrap, topic string, offset int64, count int) []*kgo.Record {
	places := map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(offset)}}
	client, err := kgo.NewClient(franzAt(bootstrap, kgo.ConsumePartitions(places))...)
	expect(err == nil, "a consumer", err)
	defer client.Close()
	client.PauseFetchTopics(topic)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	expect(client.PollFetches(short).NumRecords() == 0, "a paused topic gives nothing")
	client.ResumeFetchTopics(topic)
	var found []*kgo.Record
	for len(found) < count {
		fetches := client.PollFetches(ctx)
		expect(len(fetches.Errors()) == 0, "records come", fetches.Errors())
		found = append(found, fetches.Records()...)
	}
	return found[:count]
}

func same(left, right []byte) bool {
	return bytes.Equal(left, right) && (left == nil) == (right == nil)
}
