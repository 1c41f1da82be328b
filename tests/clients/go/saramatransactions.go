package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"
)

// saramaTransactions is what Sarama does with transactions, checked by itself.
func saramaTransactions(bootstrap, prefix string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	client, err := sarama.NewClient([]string{bootstrap}, saramaSettings())
	expect(err == nil, "a client", err)
	defer client.Close()
	admin, err := sarama.NewClusterAdminFromClient(client)
	expect(err == nil, "an administrator", err)
	topic, input, output := prefix+"-txn", prefix+"-txn-in", prefix+"-txn-out"
	for _, name := range []string{topic, input, output} {
		detail := &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}
		expect(admin.CreateTopic(name, detail, false) == nil, "a topic", name)
	}

	var expected []string
	producer := saramaTransactional(bootstrap, prefix+"-commit")
	for number := range 6 {
		expect(producer.BeginTxn() == nil, "a transaction begins")
		for record := range 3 {
			value := fmt.Sprintf("%d-%d", number, record)
			saramaWrite(producer, topic, value)
			if number%3 != 1 {
				expected = append(expected, value)
			}
		}
		if number%3 == 1 {
			expect(producer.AbortTxn() == nil, "a transaction aborts")
		} else {
			expect(producer.CommitTxn() == nil, "a transaction commits")
		}
	}
	producer.Close()
	expect(slices.Equal(saramaCommitted(bootstrap, topic, len(expected)), expected), "what was committed, in order")

	first := saramaTransactional(bootstrap, prefix+"-fence")
	expect(first.BeginTxn() == nil, "the first begins")
	saramaWrite(first, topic, "fenced")
	second := saramaTransactional(bootstrap, prefix+"-fence")
	expect(first.CommitTxn() != nil, "the first is fenced")
	expect(second.BeginTxn() == nil, "the second begins")
	saramaWrite(second, topic, "after")
	expect(second.CommitTxn() == nil, "the second commits")
	second.Close()
	expected = append(expected, "after")
	expect(slices.Equal(saramaCommitted(bootstrap, topic, len(expected)), expected), "nothing of the fenced one")

	saramaTransform(ctx, bootstrap, prefix, input, output)
}

type saramaTransformer struct {
	producer sarama.SyncProducer
	group    string
	output   string
	rounds   int
	done     int
	finish   context.CancelFunc
}

func (t *saramaTransformer) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (t *saramaTransformer) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (t *saramaTransformer) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case <-session.Context().Done():
			return nil
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			expect(t.producer.BeginTxn() == nil, "a transaction begins")
			saramaWrite(t.producer, t.output, fmt.Sprintf("<%s>", message.Value))
			err := t.producer.AddMessageToTxn(message, t.group, nil)
			expect(err == nil, "its offset joins", err)
			t.rounds++
			if t.rounds == 3 {
				expect(t.producer.AbortTxn() == nil, "a transaction aborts")
				session.ResetOffset(message.Topic, message.Partition, message.Offset, "")
				// Begins anew from what is committed.
				return nil
			}
			expect(t.producer.CommitTxn() == nil, "a transaction commits")
			t.done++
			if t.done == inputRecords {
				t.finish()
				return nil
			}
		}
	}
}

func saramaTransform(ctx context.Context, bootstrap, prefix, input, output string) {
	writer, err := sarama.NewSyncProducer([]string{bootstrap}, saramaConfig(sarama.CompressionNone, sarama.WaitForAll, false))
	expect(err == nil, "a writer", err)
	var expected []string
	for number := range inputRecords {
		saramaWrite(writer, input, fmt.Sprint(number))
		expected = append(expected, fmt.Sprintf("<%d>", number))
	}
	writer.Close()
	config := saramaSettings()
	config.Version = sarama.MaxVersion
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	group, err := sarama.NewConsumerGroup([]string{bootstrap}, prefix+"-group", config)
	expect(err == nil, "a group", err)
	defer group.Close()
	working, finish := context.WithCancel(ctx)
	transformer := &saramaTransformer{
		producer: saramaTransactional(bootstrap, prefix+"-transform"), group: prefix + "-group", output: output, finish: finish,
	}
	for working.Err() == nil {
		err := group.Consume(working, []string{input}, transformer)
		expect(err == nil || working.Err() != nil, "the group goes on", err)
	}
	expect(transformer.done == inputRecords, "all are done", transformer.done)
	expect(slices.Equal(saramaCommitted(bootstrap, output, inputRecords), expected), "each once, in order")
}

func saramaTransactional(bootstrap, id string) sarama.SyncProducer {
	config := saramaConfig(sarama.CompressionNone, sarama.WaitForAll, true)
	config.Producer.Transaction.ID = id
	config.Producer.Retry.Max = 20
	config.Producer.Transaction.Retry.Max = 200
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	expect(err == nil, "a producer", err)
	return producer
}

func saramaWrite(producer sarama.SyncProducer, topic, value string) {
	_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value)})
	expect(err == nil, "a record is taken", err)
}

// saramaCommitted reads that many committed records from the start, and whatever comes with them.
func saramaCommitted(bootstrap, topic string, count int) []string {
	config := saramaSettings()
	config.Version = sarama.MaxVersion
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	consumer, err := sarama.NewConsumer([]string{bootstrap}, config)
	expect(err == nil, "a consumer", err)
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	expect(err == nil, "a partition to read", err)
	defer partition.Close()
	var values []string
	for {
		wait := 5 * time.Minute
		if len(values) >= count {
			wait = time.Second
		}
		select {
		case message := <-partition.Messages():
			values = append(values, string(message.Value))
		case <-time.After(wait):
			if len(values) < count {
				fail("sarama: %d of %d came", len(values), count)
			}
			return values
		}
	}
}
