package deliver

import (
	"context"
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
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/format"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/packed"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/queue"
)

// BenchmarkSyslog delivers a full queue to a receiver that reads and writes
// nothing: what the window costs.
func BenchmarkSyslog(b *testing.B) {
	for _, kind := range []string{TypeSyslogTCP, TypeSyslogTLS} {
		for _, confirm := range []string{"kernel", "close"} {
			for _, window := range []int{250, 1000, 4000} {
				b.Run(fmt.Sprintf("%s/%s/window=%d", kind, confirm, window), func(b *testing.B) { benchmarkSyslog(b, kind, confirm, window) })
			}
		}
	}
}

func benchmarkSyslog(b *testing.B, kind, confirm string, window int) {
	const events = 100_000
	dir := b.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	cfg := Config{Name: "logs", Type: kind, Address: l.Addr().String(), Confirm: confirm, Window: window}
	if kind == TypeSyslogTLS {
		certificate := selfSigned(b)
		cfg.CAFile = filepath.Join(dir, "ca.pem")
		if err := os.WriteFile(cfg.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}), 0o600); err != nil {
			b.Fatal(err)
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}})
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
	if err := cfg.Check("destinations[0]"); err != nil {
		b.Fatal(err)
	}
	q, err := queue.Open(filepath.Join(dir, "queue"), 1<<30, []string{"logs"})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	raw := packed.Append(nil, testEvent())
	for range b.N {
		b.StopTimer()
		records := make([]queue.Record, 0, 1000)
		for n := range events {
			records = append(records, queue.Record{ID: fmt.Sprintf("f-%d-%06d", q.Status().Next, n), Raw: raw})
			if len(records) == cap(records) {
				if _, err := q.Append(records); err != nil {
					b.Fatal(err)
				}
				records = records[:0]
			}
		}
		d, err := New(cfg, Options{Dial: (&net.Dialer{}).DialContext, Dir: dir, Format: format.Options{Host: "gateway.example.org", Version: "1", Enterprise: 32473}}, q.Cursor("logs"))
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		b.StartTimer()
		go func() { ended <- d.Run(ctx, b.Context()) }()
		for q.Status().Records > 0 {
			time.Sleep(time.Millisecond)
		}
		b.StopTimer()
		stop()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(events*b.N)/b.Elapsed().Seconds(), "events/s")
}

func selfSigned(t testing.TB) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
