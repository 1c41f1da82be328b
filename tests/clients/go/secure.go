package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What ../python/secure.py is told, too.
type secureOptions struct {
	access
	Library, Bootstrap, Topic, Value string
	Fails                            bool
}

// One record to a protected listener and back. Ends with 3 where the node does not let it in.
func secure(argument string) {
	var options secureOptions
	if err := json.Unmarshal([]byte(argument), &options); err != nil {
		fail("%v", err)
	}
	way := secureFranz
	if options.Library == "sarama" {
		way = secureSarama
	}
	if err := way(options); err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
}

func (options secureOptions) limit() time.Duration {
	if options.Fails {
		return 20 * time.Second
	}
	return 2 * time.Minute
}

func secureFranz(options secureOptions) error {
	ctx, cancel := context.WithTimeout(context.Background(), options.limit())
	defer cancel()
	settings, err := options.franz()
	if err != nil {
		return err
	}
	settings = append(settings, kgo.SeedBrokers(options.Bootstrap), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		options.Topic: {0: kgo.NewOffset().AtStart()},
	}))
	client, err := kgo.NewClient(settings...)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return err
	}
	record := &kgo.Record{Topic: options.Topic, Value: []byte(options.Value)}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return err
	}
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return err
		}
		for _, record := range fetches.Records() {
			if string(record.Value) == options.Value {
				return nil
			}
		}
	}
}

func secureSarama(options secureOptions) error {
	config := sarama.NewConfig()
	config.Producer.Return.Successes = true
	config.Net.DialTimeout = options.limit()
	if options.Fails {
		config.Metadata.Retry.Max = 0
	}
	if err := options.sarama(config); err != nil {
		return err
	}
	client, err := sarama.NewClient([]string{options.Bootstrap}, config)
	if err != nil {
		return err
	}
	defer client.Close()
	producer, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		return err
	}
	message := &sarama.ProducerMessage{Topic: options.Topic, Value: sarama.StringEncoder(options.Value)}
	if _, _, err := producer.SendMessage(message); err != nil {
		return err
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return err
	}
	partition, err := consumer.ConsumePartition(options.Topic, 0, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	late := time.After(options.limit())
	for {
		select {
		case record := <-partition.Messages():
			if string(record.Value) == options.Value {
				return nil
			}
		case <-late:
			return fmt.Errorf("the record does not come back")
		}
	}
}
