package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func writeCA(t *testing.T, der []byte) string {
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// pki is a certificate authority with a certificate for a server and one for
// a client.
type pki struct {
	ca, cert, key         string // files, of the server
	clientCert, clientKey string // PEM
}

func newPKI(t *testing.T) pki {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	caTemplate := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(template *x509.Certificate, key *ecdsa.PrivateKey) (cert, keyPEM string) {
		der, err := x509.CreateCertificate(rand.Reader, template, caTemplate, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		k, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}))
	}
	leaf := func(serial int64, name string, usage x509.ExtKeyUsage) (string, string) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return issue(&x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}}, key)
	}
	caPEM, _ := issue(caTemplate, caKey)
	serverCert, serverKey := leaf(2, "logs.example.org", x509.ExtKeyUsageServerAuth)
	p := pki{ca: file("ca.pem", caPEM), cert: file("server.pem", serverCert), key: file("server.key", serverKey)}
	p.clientCert, p.clientKey = leaf(3, "gateway.example.org", x509.ExtKeyUsageClientAuth)
	return p
}

// rsyslog is rsyslogd with a configuration of its own, as a process that can
// be killed and started again.
type rsyslog struct {
	t               *testing.T
	dir, host, port string
	cmd             *exec.Cmd
	exited          chan struct{}
}

// newRsyslog makes the configuration: messages are written as they come, in
// the thread that reads them, so that what it has read when it takes note of
// the end of a connection is in the file.
func newRsyslog(t *testing.T, p *pki) *rsyslog {
	t.Helper()
	const driver = "/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so"
	if _, err := exec.LookPath("/usr/sbin/rsyslogd"); err != nil {
		t.Skip("rsyslogd is missing (apt-get install rsyslog)")
	}
	if _, err := os.Stat(driver); err != nil && p != nil {
		t.Skip("rsyslog has no TLS (apt-get install rsyslog-gnutls)")
	}
	r := &rsyslog{t: t, dir: t.TempDir()}
	r.host, r.port = freeAddress(t)
	tls, mode := "", ""
	if p != nil {
		tls = fmt.Sprintf(` defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q`, p.ca, p.cert, p.key)
		mode = ` streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid"`
	}
	config := fmt.Sprintf(`global(workDirectory=%q maxMessageSize="64k"%s)
main_queue(queue.type="Direct")
template(name="whole" type="string" string="%%rawmsg%%\n")
module(load="imtcp"%s)
input(type="imtcp" address="%s" port="%s")
action(type="omfile" file=%q template="whole")
`, r.dir, tls, mode, r.host, r.port, r.file())
	if err := os.WriteFile(filepath.Join(r.dir, "rsyslog.conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return r
}

// freeAddress is an address of loopback where nobody else listens, not even
// while the receiver is down: a port of those that the kernel gives to nobody by
// itself, of one of 16 million hosts.
func freeAddress(t *testing.T) (host, port string) {
	t.Helper()
	for range 1000 {
		host = fmt.Sprintf("127.%d.%d.%d", 1+mathrand.IntN(254), mathrand.IntN(256), 1+mathrand.IntN(254))
		port = strconv.Itoa(10000 + mathrand.IntN(20000))
		if l, err := net.Listen("tcp", net.JoinHostPort(host, port)); err == nil {
			l.Close()
			return host, port
		}
	}
	t.Fatal("no port is free")
	return "", ""
}

func (r *rsyslog) file() string    { return filepath.Join(r.dir, "received") }
func (r *rsyslog) address() string { return net.JoinHostPort(r.host, r.port) }

func (r *rsyslog) start() {
	r.t.Helper()
	r.cmd = exec.Command("/usr/sbin/rsyslogd", "-n", "-f", filepath.Join(r.dir, "rsyslog.conf"), "-i", filepath.Join(r.dir, "pid"))
	os.Remove(filepath.Join(r.dir, "pid")) // of one that was killed
	log, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		r.t.Fatal(err)
	}
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if err := startBound(r.cmd); err != nil {
		r.t.Fatal(err)
	}
	log.Close()
	r.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(r.cmd, r.exited)
	r.t.Cleanup(r.kill)
	eventually(r.t, func() string {
		b, _ := os.ReadFile(filepath.Join(r.dir, "log"))
		return "rsyslogd listens: " + string(b)
	}, func() bool {
		c, err := net.Dial("tcp", r.address())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (r *rsyslog) kill() {
	_ = r.cmd.Process.Signal(syscall.SIGKILL)
	<-r.exited
}

// received reads the ids from the file. A last line without its end is that of
// a receiver that was killed while it wrote.
func (r *rsyslog) received() *ledger {
	l := &ledger{}
	b, _ := os.ReadFile(r.file())
	id := regexp.MustCompile(`^<\d+>1 \S+ gateway\.example\.org mobileops \S+ \S+ \[mobileops@32473 [^\n]*?id="([fa]-\d+)"`)
	for _, line := range strings.SplitAfter(string(b), "\n") {
		if !strings.HasSuffix(line, "\n") {
			continue
		}
		if m := id.FindStringSubmatch(line); m != nil {
			l.add(m[1])
		}
	}
	return l
}

func TestSyslogOverTLS(t *testing.T) {
	p := newPKI(t)
	r := newRsyslog(t, &p)
	r.start()
	for _, confirm := range []string{"kernel", "close"} {
		os.Remove(r.file())
		r.kill()
		r.start()
		h := newHost(t, settingsOf(quick(map[string]any{"name": "logs", "type": "syslog-tls", "address": r.address(), "ca_file": p.ca,
			"server_name": "logs.example.org", "confirm": confirm})),
			map[string]string{"destinations[0].client_cert": p.clientCert, "destinations[0].client_key": p.clientKey})
		run := h.serve()
		h.emit(append(findings(0, 2000), audit(0))...)
		count := func() string {
			n, d := r.received().count()
			return fmt.Sprintf("%s: %d, %d doubles, %+v", confirm, n, d, h.status())
		}
		eventually(t, count, func() bool { n, _ := r.received().count(); return n == 2001 })
		eventually(t, count, func() bool { return h.status().Queue.Records == 0 && h.status().Queue.Next == 2002 })
		if out, status := h.command("test", "logs"); status != 0 || !strings.Contains(out, "TLS 1.3") {
			t.Errorf("status %d: %s", status, out)
		}
		run.stop(t)
		if n, doubles := r.received().count(); n != 2001 || doubles != 0 {
			t.Errorf("%s: %d, %d doubles", confirm, n, doubles)
		}
	}
	// A name that is not in the certificate, and no certificate of our own.
	h := newHost(t, settingsOf(quick(map[string]any{"name": "logs", "type": "syslog-tls", "address": r.address(), "ca_file": p.ca})), nil)
	if out, status := h.command("test", "logs"); status != 1 || !strings.Contains(out, "certificate") {
		t.Errorf("status %d: %s", status, out)
	}
}
