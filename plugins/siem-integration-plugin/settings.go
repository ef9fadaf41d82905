package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/deliver"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/format"
)

// settings are the configuration, as plugin.yaml describes it.
type settings struct {
	QueueSize    deliver.Size     `json:"queue_size"`
	Host         string           `json:"host"`
	Enterprise   uint32           `json:"enterprise"`
	Destinations []deliver.Config `json:"destinations"`

	secrets []deliver.Secrets
}

const leastQueue = 16 << 20

// dataDir is the private directory of the plugin.
func dataDir() string { return os.Getenv(pluginsdk.EnvData) }

// configured reads the configuration with its secrets, and checks what the
// description in plugin.yaml cannot say.
func configured(ctx context.Context, client *pluginsdk.Client) (*settings, error) {
	s := &settings{}
	if err := client.Config(ctx, s); err != nil {
		return nil, err
	}
	if s.QueueSize == 0 {
		s.QueueSize = 1 << 30
	}
	if s.QueueSize < leastQueue {
		return nil, fail(statusNotReady, "queue_size: %d bytes are too few (at least 16MiB)", s.QueueSize)
	}
	if len(s.Destinations) == 0 {
		return nil, fail(statusNotReady, "destinations: there are none; write them into the configuration of the plugin")
	}
	known, err := client.SecretNames(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for i := range s.Destinations {
		d, path := &s.Destinations[i], fmt.Sprintf("destinations[%d]", i)
		if err := d.Check(path); err != nil {
			return nil, &failure{statusNotReady, err}
		}
		if names[d.Name] {
			return nil, fail(statusNotReady, "%s.name: %q is there twice", path, d.Name)
		}
		names[d.Name] = true
		var secrets deliver.Secrets
		for name, to := range map[string]*string{
			"token": &secrets.Token, "password": &secrets.Password, "hmac_key": &secrets.HMACKey,
			"client_cert": &secrets.ClientCert, "client_key": &secrets.ClientKey,
		} {
			if !slices.Contains(known, path+"."+name) {
				continue
			}
			if *to, err = client.Secret(ctx, path+"."+name); err != nil && !errors.Is(err, &pluginsdk.Error{Code: pluginsdk.CodeNotFound}) {
				return nil, fmt.Errorf("%s.%s: %w", path, name, err)
			}
		}
		if d.Type == deliver.TypeHEC && secrets.Token == "" {
			return nil, fail(statusNotReady, "%s.token: hec needs the token of the collector", path)
		}
		s.secrets = append(s.secrets, secrets)
	}
	return s, nil
}

// options are what a destination needs beside its configuration.
func (s *settings) options(client *pluginsdk.Client, i int) deliver.Options {
	host := s.Host
	if host == "" {
		host, _ = os.Hostname()
	}
	return deliver.Options{
		Dial: client.Dial, Dir: dataDir(), Secrets: s.secrets[i],
		Format: format.Options{Host: host, Version: client.Hello().Host.Version, Enterprise: s.Enterprise},
	}
}

// find returns the number of a destination.
func (s *settings) find(name string) (int, error) {
	i := slices.IndexFunc(s.Destinations, func(d deliver.Config) bool { return d.Name == name })
	if i < 0 {
		return 0, fail(statusUsage, "no destination %q in the configuration; there are %q", name, s.names())
	}
	return i, nil
}

func (s *settings) names() []string {
	var list []string
	for i := range s.Destinations {
		list = append(list, s.Destinations[i].Name)
	}
	return list
}

func statusPath() string { return filepath.Join(dataDir(), "status.json") }
