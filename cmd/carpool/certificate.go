package main

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"

	"carpool/internal/config"
)

// certificate is the server's, which can be replaced while it serves: connections that exist keep the old one.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
}

// config is nil, which is plain HTTP, when there is no certificate.
func (c *certificate) config() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}

func loadCertificate(files config.TLS) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("cannot use server.tls: %w", err)
	}
	return &pair, nil
}

// next is the certificate for another configuration; nil when there is to be none, or when there cannot be one before a restart.
func (c *certificate) next(files config.TLS) (*tls.Certificate, error) {
	if c == nil || !files.Enabled() {
		return nil, nil //nolint:nilnil // nothing changes
	}
	return loadCertificate(files)
}
