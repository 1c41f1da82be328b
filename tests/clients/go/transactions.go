package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const inputRecords = 40

// transactions is what franz-go does with transactions, checked by itself.
func transactions(bootstrap, prefix string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	client, err := kgo.NewClient(franzAt(bootstrap)...)
	expect(err == nil, "a client", err)
	defer client.Close()
	topic, input, output := prefix+"-txn", prefix+"-txn-in", prefix+"-txn-out"
	_, err = kadm.NewClient(client).CreateTopics(ctx, 1, 1, nil, topic, input, output)
	expect(err == nil, "topics", err)

	var expected []string
	producer := transactional(bootstrap, prefix+"-commit")
	for number := range 6 {
		expect(producer.BeginTransaction() == nil, "a transaction begins")
		var values []string
		for record := range 3 {
			values = append(values, fmt.Sprintf("%d-%d", number, record))
		}
		put(ctx, producer, topic, values...)
		commit := kgo.TryCommit
		if number%3 == 1 {
			commit = kgo.TryAbort
		} else {
			expected = append(expected, values...)
		}
		expect(producer.EndTransaction(ctx, commit) == nil, "a transaction ends")
	}
	producer.Close()
	expect(slices.Equal(committed(ctx, bootstrap, topic, len(expected)), expected), "what was committed, in order")

	first := transactional(bootstrap, prefix+"-fence")
	expect(first.BeginTransaction() == nil, "the first begins")
	put(ctx, first, topic, "fenced")
	second := transactional(bootstrap, prefix+"-fence")
	expect(second.BeginTransaction() == nil, "the second begins")
	put(ctx, second, topic, "after")
	expect(second.EndTransaction(ctx, kgo.TryCommit) == nil, "the second commits")
	expect(first.EndTransaction(ctx, kgo.TryCommit) != nil, "the first is fenced")
	second.Close()
	first.Close()
	expected = append(expected, "after")
	expect(slices.Equal(committed(ctx, bootstrap, topic, len(expected)), expected), "nothing of the fenced one")

	transform(ctx, bootstrap, prefix, input, output)
}

func transform(ctx context.Context, bootstrap, prefix, input, output string) {
	writer, err := kgo.NewClient(franzAt(bootstrap)...)
	expect(err == nil, "a writer", err)
	var numbers, expected []string
	for number := range inputRecords {
		numbers = append(numbers, fmt.Sprint(number))
		expected = append(expected, fmt.Sprintf("<%d>", number))
	}
	put(ctx, writer, input, numbers...)
	writer.Close()
	session, err := kgo.NewGroupTransactSession(franzAt(
		bootstrap, kgo.TransactionalID(prefix+"-transform"), kgo.ConsumerGroup(prefix+"-group"),
		kgo.ConsumeTopics(input), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)...)
	expect(err == nil, "a session", err)
	defer session.Close()
	done := 0
	for round := 0; done < inputRecords; round++ {
		fetches := session.PollRecords(ctx, 7)
		if errs := fetches.Errors(); len(errs) > 0 {
			fail("records come: %v", errs)
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		expect(session.Begin() == nil, "a transaction begins")
		for _, record := range fetches.Records() {
			session.Produce(ctx, &kgo.Record{Topic: output, Value: fmt.Appendf(nil, "<%s>", record.Value)}, nil)
		}
		commit := kgo.TryCommit
		if round == 1 {
			commit = kgo.TryAbort
		}
		hasCommitted, err := session.End(ctx, commit)
		expect(err == nil, "a transaction ends", err)
		if hasCommitted {
			done += fetches.NumRecords()
		}
	}
	expect(slices.Equal(committed(ctx, bootstrap, output, inputRecords), expected), "each once, in order")
}

func transactional(bootstrap, id string) *kgo.Client {
	client, err := kgo.NewClient(franzAt(bootstrap, kgo.TransactionalID(id))...)
	expect(err == nil, "a producer", err)
	return client
}

func put(ctx context.Context, client *kgo.Client, topic string, values ...string) {
	for _, value := range values {
		err := client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr()
		expect(err == nil, "a record is taken", err)
	}
}

// committed reads that many committed records from the start, and whatever comes with them.
func committed(ctx context.Context, bootstrap, topic string, count int) []string {
	client, err := kgo.NewClient(franzAt(
		bootstrap, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)...)
	expect(err == nil, "a consumer", err)
	defer client.Close()
	var values []string
	for {
		wait, cancel := context.WithTimeout(ctx, time.Second)
		fetches := client.PollFetches(wait)
		cancel()
		for _, record := range fetches.Records() {
			values = append(values, string(record.Value))
		}
		if fetches.NumRecords() == 0 && len(values) >= count {
			return values
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			fail("%s: %d of %d came", topic, len(values), count)
		}
	}
}
