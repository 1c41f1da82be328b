// Test client on franz-go; see ../README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

type line struct {
	Key       *[]byte           `json:"key"`
	Value     *[]byte           `json:"value"`
	RawHeads  []json.RawMessage `json:"headers"`
	Timestamp int64             `json:"timestamp"`
	Partition *int32            `json:"partition,omitempty"`
	Offset    *int64            `json:"offset,omitempty"`
}

type header struct {
	name  string
	value *[]byte
}

func (h *header) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&h.name, &h.value})
}

func (h header) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{h.name, h.value})
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}

func bytesOf(field *[]byte) []byte {
	if field == nil {
		return nil
	}
	if *field == nil {
		return []byte{}
	}
	return *field
}

func fieldOf(data []byte) *[]byte {
	if data == nil {
		return nil
	}
	return &data
}

func main() {
	if len(os.Args) < 2 {
		fail("usage: go-client produce|consume|group|suite|sarama-suite|kafka-go-suite|transactions|sarama-transactions|secure …")
	}
	if os.Args[1] == "secure" && len(os.Args) == 3 {
		secure(os.Args[2])
		return
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	bootstrap := flags.String("bootstrap", "", "broker")
	topic := flags.String("topic", "", "topic")
	codec := flags.String("codec", "none", "compression")
	input := flags.String("input", "", "records to produce")
	output := flags.String("output", "", "records consumed")
	group := flags.String("group", "", "group to join")
	count := flags.Int("count", 0, "records to consume")
	protocol := flags.String("protocol", "classic", "protocol of the group")
	assignor := flags.String("assignor", "uniform", "assignor of the broker, in the consumer protocol")
	instance := flags.String("instance", "", "static member")
	pattern := flags.String("pattern", "", "pattern in place of the topic")
	isolation := flags.String("isolation", "read_uncommitted", "isolation level")
	flags.Parse(os.Args[2:])
	switch os.Args[1] {
	case "produce":
		produce(*bootstrap, *topic, *codec, *input)
	case "consume":
		consume(*bootstrap, *topic, *isolation, *output, *count)
	case "sarama-suite":
		saramaSuite(*bootstrap, *topic)
	case "transactions":
		transactions(*bootstrap, *topic)
	case "sarama-transactions":
		saramaTransactions(*bootstrap, *topic)
	case "kafka-go-suite":
		kafkaGoSuite(*bootstrap, *topic)
	case "suite":
		suite(*bootstrap, *topic)
	case "group":
		join(*bootstrap, *topic, *pattern, *group, *output, membership(*protocol, *assignor, *instance))
	default:
		fail("unknown verb %s", os.Args[1])
	}
}

func produce(bootstrap, topic, codec, input string) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.ProducerBatchCompression(codecs[codec]),
		kgo.AllowAutoTopicCreation(),
	)
	if err != nil {
		fail("%v", err)
	}
	defer client.Close()
	file, err := os.Open(input)
	if err != nil {
		fail("%v", err)
	}
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 64<<20)
	var lock sync.Mutex
	var failed []error
	sent := 0
	for scanner.Scan() {
		var line line
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			fail("%v", err)
		}
		message := &kgo.Record{
			Topic: topic, Key: bytesOf(line.Key), Value: bytesOf(line.Value),
			Timestamp: time.UnixMilli(line.Timestamp),
		}
		for _, raw := range line.RawHeads {
			var one header
			if err := one.UnmarshalJSON(raw); err != nil {
				fail("%v", err)
			}
			message.Headers = append(message.Headers, kgo.RecordHeader{Key: one.name, Value: bytesOf(one.value)})
		}
		sent++
		client.Produce(context.Background(), message, func(_ *kgo.Record, err error) {
			if err != nil {
				lock.Lock()
				failed = append(failed, err)
				lock.Unlock()
			}
		})
	}
	// Not kgo.RecordDeliveryTimeout: it counts from the record's timestamp, and these are old.
	limit, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := client.Flush(limit); err != nil {
		fail("%v", err)
	}
	if len(failed) > 0 {
		fail("produce: %d of %d failed, first %v", len(failed), sent, failed[0])
	}
}

func consume(bootstrap, topic, isolation, output string, count int) {
	level := kgo.ReadUncommitted()
	if isolation == "read_committed" {
		level = kgo.ReadCommitted()
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(level),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		fail("%v", err)
	}
	defer client.Close()
	file, err := os.Create(output)
	if err != nil {
		fail("%v", err)
	}
	writer := bufio.NewWriter(file)
	encoder := json.NewEncoder(writer)
	limit, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	found := 0
	for found < count {
		fetches := client.PollFetches(limit)
		if limit.Err() != nil {
			fail("consume: %d of %d records came in time", found, count)
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			fail("consume %s-%d: %v", topic, partition, err)
		})
		fetches.EachRecord(func(message *kgo.Record) {
			write(encoder, message)
			found++
		})
	}
	if err := writer.Flush(); err != nil {
		fail("%v", err)
	}
	if found != count {
		fail("consume: %d records came, %d expected", found, count)
	}
}

func write(encoder *json.Encoder, message *kgo.Record) {
	line := line{
		Key: fieldOf(message.Key), Value: fieldOf(message.Value), Timestamp: message.Timestamp.UnixMilli(),
		Partition: &message.Partition, Offset: &message.Offset, RawHeads: []json.RawMessage{},
	}
	for _, one := range message.Headers {
		raw, err := header{one.Key, fieldOf(one.Value)}.MarshalJSON()
		if err != nil {
			fail("%v", err)
		}
		line.RawHeads = append(line.RawHeads, raw)
	}
	if err := encoder.Encode(line); err != nil {
		fail("%v", err)
	}
}

// membership is how a member stands to its group. In the consumer protocol (KIP-848) a balancer names the broker's assignor.
func membership(protocol, assignor, instance string) []kgo.Opt {
	options := []kgo.Opt{kgo.SessionTimeout(12 * time.Second), kgo.HeartbeatInterval(500 * time.Millisecond)}
	if instance != "" {
		options = append(options, kgo.InstanceID(instance))
	}
	if protocol != "consumer" {
		return append(options, kgo.Balancers(kgo.RangeBalancer()))
	}
	balancer := kgo.StickyBalancer()
	if assignor == "range" {
		balancer = kgo.RangeBalancer()
	}
	return append(options, kgo.ServerSideBalancer(), kgo.Balancers(balancer))
}

// isTurnedOut tells whether a group does not know the member any more, or not in this generation.
func isTurnedOut(err error) bool {
	for _, one := range []error{
		kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.FencedMemberEpoch, kerr.StaleMemberEpoch,
	} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

func join(bootstrap, topic, pattern, group, output string, options []kgo.Opt) {
	options = append(
		options, kgo.SeedBrokers(bootstrap), kgo.ConsumerGroup(group), kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if pattern == "" {
		options = append(options, kgo.ConsumeTopics(topic))
	} else {
		options = append(options, kgo.ConsumeTopics(pattern), kgo.ConsumeRegex())
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		fail("%v", err)
	}
	file, err := os.Create(output)
	if err != nil {
		fail("%v", err)
	}
	encoder := json.NewEncoder(file)
	running, end := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		end()
	}()
	for running.Err() == nil {
		fetches := client.PollRecords(running, 100)
		fetches.EachError(func(topic string, partition int32, err error) {
			// Of a group that it was turned out of, or could not join, the client only tells: it joins again by itself.
			var left *kgo.ErrGroupSession
			if running.Err() == nil && !errors.As(err, &left) {
				fail("group %s-%d: %v", topic, partition, err)
			}
		})
		records := fetches.Records()
		for _, message := range records {
			write(encoder, message)
		}
		// While polled records are not given back, nobody else gets their partition, unless this member was silent for longer
		// than its session: then whoever has it now reads them again. Any other failed commit is a fault.
		if err := client.CommitRecords(context.Background(), records...); err != nil && !isTurnedOut(err) {
			fail("group: %v", err)
		}
		client.AllowRebalance()
	}
	client.LeaveGroup()
	client.Close()
}
