package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"
)

// tlsConfig is the TLS of a destination. There is no way to leave out the check
// of the receiver's certificate: who wants a self-signed one names it as the
// CA.
func tlsConfig(cfg Config, secrets Secrets) (*tls.Config, error) {
	host := cfg.Address
	if cfg.URL != "" {
		u, err := url.Parse(cfg.URL)
		if err != nil {
			return nil, err
		}
		host = u.Host
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	t := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: or(cfg.ServerName, name),
		// Records of full size: a message is a small part of one.
		DynamicRecordSizingDisabled: true,
	}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s has no certificate in PEM", cfg.CAFile)
		}
	}
	if secrets.ClientCert != "" || secrets.ClientKey != "" {
		pair, err := tls.X509KeyPair([]byte(secrets.ClientCert), []byte(secrets.ClientKey))
		if err != nil {
			return nil, fmt.Errorf("client_cert and client_key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// connectTimeout is for the connection and the handshake together.
const connectTimeout = 20 * time.Second

// handshake begins TLS over conn.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (*tls.Conn, error) {
	t := tls.Client(conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return t, nil
}
