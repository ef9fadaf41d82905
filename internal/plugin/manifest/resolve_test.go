package manifest

import (
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

const resolvable = head + body + `config:
  hosts: {type: list, items: {type: string}}
  paths: {type: list, items: {type: string}}
  socket: {type: string}
permissions:
  network: ["fixed.example:1", "config:hosts[]"]
  read: [/etc/ssl, "config:paths[]"]
  unix: ["config:socket"]
`

func resolve(t *testing.T, conf string) (ResolvedPermissions, error) {
	t.Helper()
	m := parse(t, resolvable)
	v, err := m.Config.Validate([]byte(conf))
	if err != nil {
		t.Fatal(err)
	}
	return m.Permissions.Resolve(v)
}

func TestResolve(t *testing.T) {
	got, err := resolve(t, `
hosts:
  - logs.example:6514
  - https://Splunk.Example/services/collector
  - http://plain.example
  - https://user:password@[2001:0db8::1]:8443/x?y#z
  - tcp://raw.example:99
  - tls://secure.example:6514
  - 192.0.2.1:5
  - "[::ffff:192.0.2.1]:5"
  - fixed.example:1
  - ""
paths: [/srv/a, /etc/ssl]
socket: /run/x.sock
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"fixed.example:1", "logs.example:6514", "splunk.example:443", "plain.example:80", "[2001:db8::1]:8443",
		"raw.example:99", "secure.example:6514", "192.0.2.1:5"}
	if !slices.Equal(got.Network, want) {
		t.Errorf("%q, want %q", got.Network, want)
	}
	if !slices.Equal(got.Read, []string{"/etc/ssl", "/srv/a"}) || !slices.Equal(got.Unix, []string{"/run/x.sock"}) {
		t.Errorf("%q %q", got.Read, got.Unix)
	}
	for address, may := range map[string]bool{
		"splunk.example:443": true, "SPLUNK.example:443": true, "splunk.example.:443": true, "splunk.example:80": false,
		"sub.splunk.example:443": false, "[2001:DB8:0::1]:8443": true, "evil.example:443": false, "": false, "splunk.example": false,
		"[::ffff:c000:201]:5": true,
	} {
		if got.MayDial("tcp", address) != may {
			t.Errorf("tcp %s: %t", address, !may)
		}
	}
	for address, may := range map[string]bool{"/run/x.sock": true, "/run/./x.sock": false, "/run/../run/x.sock": false, "@x": false, "": false} {
		if got.MayDial("unix", address) != may {
			t.Errorf("unix %s: %t", address, !may)
		}
	}
	if got.MayDial("udp", "splunk.example:443") || got.MayDial("", "splunk.example:443") {
		t.Error("another network")
	}
	for _, l := range got.List() {
		if strings.Contains(l.What+l.Meaning, ConfigPrefix) {
			t.Errorf("%+v", l)
		}
	}

	// Nothing set is nothing permitted.
	if got, err = resolve(t, ""); err != nil || len(got.Network) != 1 || len(got.Unix) != 0 {
		t.Errorf("%v, %+v", err, got)
	}
}

func TestResolveRefuses(t *testing.T) {
	for conf, want := range map[string]string{
		"hosts: [a.example]":                        `hosts[], number 1: "a.example" is not host:port`,
		"hosts: ['a.example:1', 'b.example:99999']": "hosts[], number 2",
		"hosts: ['tcp://a.example']":                "has no port, and tcp has none that is usual",
		"hosts: ['udp://a.example:514']":            "plugins reach the network by TCP",
		"hosts: ['https://']":                       "it has no host",
		"hosts: ['https://*.example']":              "other characters than letters",
		"hosts: ['https://münchen.example']":        "xn--",
		"hosts: ['https://127.1']":                  "it looks like an address",
		"hosts: ['https://a b.example']":            "is not a URL",
		"hosts: ['unix:///run/x']":                  "plugins reach the network by TCP",
		"paths: [etc]":                              `paths[], number 1: "etc" is not absolute`,
		"paths: [/srv/../etc/shadow]":               `is not clean; write "/etc/shadow"`,
		"socket: run/x":                             `socket: "run/x" is not absolute`,
		"socket: /" + strings.Repeat("s", 107):      "at most 107",
	} {
		got, err := resolve(t, conf)
		if err == nil || !strings.Contains(err.Error(), want) || failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: %v, %v", conf, got.Network, err)
		}
	}
	for _, conf := range []string{"hosts: ['https://user:hunter2@a b.example']", "hosts: ['user:hunter2@a.example']", "hosts: ['tcp://hunter2@a.example']"} {
		if _, err := resolve(t, conf); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", conf, err)
		}
	}
}
