package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// access is how a client gets in where not everybody may: the options of ../python/secure.py.
type access struct {
	Protocol, Mechanism, User, Password, Token string
	Ca, Certificate, Key                       string
}

// accessGiven is what the suites are given; without any options everybody may get in.
func accessGiven() access {
	var options access
	if given := os.Getenv("CLIENT_ACCESS"); given != "" {
		if err := json.Unmarshal([]byte(given), &options); err != nil {
			fail("%v", err)
		}
	}
	return options
}

func (options access) tls() (*tls.Config, error) {
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

// franz is the same as settings of franz-go.
func (options access) franz() ([]kgo.Opt, error) {
	var settings []kgo.Opt
	if options.Ca != "" {
		config, err := options.tls()
		if err != nil {
			return nil, err
		}
		settings = append(settings, kgo.DialTLSConfig(config))
	}
	hashed := scram.Auth{User: options.User, Pass: options.Password}
	switch options.Mechanism {
	case "PLAIN":
		settings = append(settings, kgo.SASL(plain.Auth{User: options.User, Pass: options.Password}.AsMechanism()))
	case "SCRAM-SHA-256":
		settings = append(settings, kgo.SASL(hashed.AsSha256Mechanism()))
	case "SCRAM-SHA-512":
		settings = append(settings, kgo.SASL(hashed.AsSha512Mechanism()))
	case "OAUTHBEARER":
		settings = append(settings, kgo.SASL(oauth.Auth{Token: options.Token}.AsMechanism()))
	}
	return settings, nil
}

// franzAt is the settings of a suite's client of the broker at bootstrap.
func franzAt(bootstrap string, more ...kgo.Opt) []kgo.Opt {
	settings, err := accessGiven().franz()
	expect(err == nil, "a way in", err)
	return append(append(settings, kgo.SeedBrokers(bootstrap)), more...)
}

type accessToken string

func (token accessToken) Token() (*sarama.AccessToken, error) {
	return &sarama.AccessToken{Token: string(token)}, nil
}

// sarama adds the same to settings of sarama, which leaves SCRAM to its user.
func (options access) sarama(config *sarama.Config) error {
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
			config.Net.SASL.TokenProvider = accessToken(options.Token)
		}
	}
	return nil
}

// saramaSettings are the library's own for a suite's client.
func saramaSettings() *sarama.Config {
	config := sarama.NewConfig()
	err := accessGiven().sarama(config)
	expect(err == nil, "a way in", err)
	return config
}
