package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// What ../python/secure.py is told, too.
type secureOptions struct {
	Library, Bootstrap, Topic, Value, Protocol, Mechanism, User, Password, Token string
	Ca, Certificate, Key                                                         string
	Fails                                                                        bool
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

func (options secureOptions) tls() (*tls.Config, error) {
	pem, err := os.ReadFile(options.Ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(pem)
	if options.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(options.Certificate, options.Key)
		if err != nil {
			return nil, err
		}
		// Always shown, also if the broker trusts nobody who signed it.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return config, nil
}

func (options secureOptions) limit() time.Duration {
	if options.Fails {
		return 5 * time.Second
	}
	return 30 * time.Second
}

func secureFranz(options secureOptions) error {
	ctx, cancel := context.WithTimeout(context.Background(), options.limit())
	defer cancel()
	settings := []kgo.Opt{kgo.SeedBrokers(options.Bootstrap), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		options.Topic: {0: kgo.NewOffset().AtStart()},
	})}
	if options.Ca != "" {
		config, err := options.tls()
		if err != nil {
			return err
		}
		settings = append(settings, kgo.DialTLSConfig(config))
	}
	var mechanism sasl.Mechanism
	hashed := scram.Auth{User: options.User, Pass: options.Password}
	switch options.Mechanism {
	case "PLAIN":
		mechanism = plain.Auth{User: options.User, Pass: options.Password}.AsMechanism()
	case "SCRAM-SHA-256":
		mechanism = hashed.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		mechanism = hashed.AsSha512Mechanism()
	case "OAUTHBEARER":
		mechanism = oauth.Auth{Token: options.Token}.AsMechanism()
	}
	if mechanism != nil {
		settings = append(settings, kgo.SASL(mechanism))
	}
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

type secureToken string

func (token secureToken) Token() (*sarama.AccessToken, error) {
	return &sarama.AccessToken{Token: string(token)}, nil
}

// sarama leaves SCRAM to its user.
func secureSarama(options secureOptions) error {
	config := sarama.NewConfig()
	config.Producer.Return.Successes = true
	config.Net.DialTimeout = options.limit()
	if options.Fails {
		config.Metadata.Retry.Max = 0
	}
	if options.Ca != "" {
		own, err := options.tls()
		if err != nil {
			return err
		}
		config.Net.TLS.Enable, config.Net.TLS.Config = true, own
	}
	if options.Mechanism != "" {
		config.Net.SASL.Enable = true
		config.Net.SASL.Mechanism = sarama.SASLMechanism(options.Mechanism)
		config.Net.SASL.User, config.Net.SASL.Password = options.User, options.Password
		if options.Token != "" {
			config.Net.SASL.TokenProvider = secureToken(options.Token)
		}
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
