package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

func benchTime() time.Time { return time.Date(2026, 5, 6, 7, 8, 9, 123456789, time.UTC) }

// receiver counts what it gets, and reads no more of it than it must.
type receiver struct {
	kind, address string
	want          int64
	ca            string
	cert          tls.Certificate
	l             net.Listener
	count         atomic.Int64
	first         atomic.Int64 // when the first byte came
	last          time.Time    // when the last event was whole; after done
	done          chan struct{}
}

func newReceiver(kind, dir string, want int) (*receiver, error) {
	r := &receiver{kind: kind, want: int64(want), done: make(chan struct{})}
	// A port that is free now; nobody listens on it until start.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.address = l.Addr().String()
	l.Close()
	if kind != "syslog-tls" {
		return r, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	r.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	r.ca = filepath.Join(dir, "ca.pem")
	return r, os.WriteFile(r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}

// config is the configuration of the plugin.
func (r *receiver) config() map[string]any {
	d := map[string]any{"name": "bench", "type": r.kind, "retry_min": "10ms", "retry_max": "20ms"}
	if r.kind == "bulk" {
		d["url"] = "http://" + r.address
	} else {
		d["address"] = r.address
	}
	if r.ca != "" {
		d["ca_file"] = r.ca
	}
	return map[string]any{"queue_size": "8GiB", "host": "bench", "destinations": []any{d}}
}

func (r *receiver) start() (err error) {
	if r.l, err = net.Listen("tcp", r.address); err != nil {
		return err
	}
	if r.kind == "bulk" {
		go http.Serve(r.l, http.HandlerFunc(r.bulk))
		return nil
	}
	go func() {
		for {
			c, err := r.l.Accept()
			if err != nil {
				return
			}
			if r.kind == "syslog-tls" {
				c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{r.cert}, MinVersion: tls.VersionTLS13})
			}
			go r.syslog(c)
		}
	}()
	return nil
}

func (r *receiver) close() {
	if r.l != nil {
		r.l.Close()
	}
}

func (r *receiver) got(n int64) {
	if total := r.count.Add(n); total >= r.want && total-n < r.want {
		r.last = time.Now()
		close(r.done)
	}
}

// syslog counts messages by their lengths (RFC 6587, octet counting).
func (r *receiver) syslog(c net.Conn) {
	defer c.Close()
	b := make([]byte, 256<<10)
	length, skip := 0, 0
	for {
		n, err := c.Read(b)
		r.first.CompareAndSwap(0, time.Now().UnixNano())
		var messages int64
		for at := 0; at < n; {
			if skip > 0 {
				k := min(skip, n-at)
				at += k
				if skip -= k; skip == 0 {
					messages++
				}
				continue
			}
			switch d := b[at]; {
			case d == ' ':
				skip, length = length, 0
			case d >= '0' && d <= '9':
				length = 10*length + int(d-'0')
			default:
				fmt.Fprintf(os.Stderr, "bench: %q where a length should be\n", d)
				return
			}
			at++
		}
		r.got(messages)
		if err != nil {
			return
		}
	}
}

func (r *receiver) bulk(w http.ResponseWriter, req *http.Request) {
	r.first.CompareAndSwap(0, time.Now().UnixNano())
	b := make([]byte, 256<<10)
	var lines int64
	for {
		n, err := req.Body.Read(b)
		lines += int64(bytes.Count(b[:n], []byte{'\n'}))
		if err != nil {
			if err != io.EOF {
				return
			}
			break
		}
	}
	fmt.Fprint(w, `{"took":1,"errors":false,"items":[]}`)
	r.got(lines / 2)
}
