package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"carpool/internal/config"
	"carpool/internal/control"
)

// client returns the way to the server's admin API: CARPOOL_URL when it is set and no flag names a server on this machine,
// else the Unix socket in the data folder that flags, environment and configuration lead to.
func (a *app) client() (*control.Client, error) {
	if url, token, ok := a.remote(); ok {
		if token == "" {
			return nil, errors.New("CARPOOL_URL is set but CARPOOL_TOKEN is not: set it to an administrator's token (make one with carpool admin token add), or name a server on this machine with --data")
		}
		return control.NewClient(control.ClientOptions{URL: url, Token: token})
	}
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	return control.NewClient(control.ClientOptions{Socket: socketPath(cfg)})
}

// remote says whether the server is reached over the network.
func (a *app) remote() (url, token string, ok bool) {
	url, _ = a.getenv("CARPOOL_URL")
	token, _ = a.getenv("CARPOOL_TOKEN")
	return url, token, url != "" && a.configFile == "" && a.dataDir == ""
}

// withClient runs f with a client and releases it afterwards.
func (a *app) withClient(f func(*control.Client) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// addressName is the file beside the socket in which a server says where developers reach it. Its --listen may differ
// from the configuration that a client command sees.
const addressName = "carpool.url"

// publishAddress leaves the server's base URL in the data folder for baseURL. Call the result when the server ends.
func publishAddress(cfg *config.Config, url string) (withdraw func() error, err error) {
	file := filepath.Join(cfg.DataDir, addressName)
	if err := os.WriteFile(file, []byte(url+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("cannot write the server's address: %w", err)
	}
	return func() error {
		if err := os.Remove(file); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}, nil
}

// baseURL is where developers reach the gateway, as far as this side can tell: the address that administration goes to,
// or what the configuration or the running server says.
func (a *app) baseURL() string {
	if url, _, ok := a.remote(); ok {
		return url
	}
	cfg, err := a.loadConfig()
	if err != nil {
		return "http://127.0.0.1:8080"
	}
	if cfg.Node.Endpoint != "" {
		return cfg.Node.Endpoint
	}
	if published, err := os.ReadFile(filepath.Join(cfg.DataDir, addressName)); err == nil {
		return strings.TrimSpace(string(published))
	}
	scheme := "http://"
	if cfg.Server.TLS.Enabled() {
		scheme = "https://"
	}
	return scheme + cfg.Server.Address()
}

// serverTime writes a point in time for the admin API. Dates go as they are, because the server knows the zone that it
// counts days in; what else needs that zone asks for it.
func (a *app) serverTime(ctx context.Context, c *control.Client, flag, text string) (string, error) {
	now := a.now()
	if _, err := time.Parse(time.DateOnly, text); err == nil || text == "" {
		return text, nil
	}
	if _, err := parsePast(text, now); err != nil {
		return "", usagef("the flag --%s does not take %q: %s", flag, text, err)
	}
	if _, ok := parsePeriod(text); !ok {
		status, err := c.Status(ctx)
		if err != nil {
			return "", err
		}
		if zone, err := time.LoadLocation(status.TimeZone); err == nil {
			now = now.In(zone)
		}
	}
	t, err := parsePast(text, now)
	return t.UTC().Format(time.RFC3339Nano), err
}

// removal is the JSON of a removal, in the words of apply.
type removal struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Action string `json:"action"`
}

func (a *app) removed(kind, name string) error {
	return a.done(removal{kind, name, "removed"}, "%s %s removed", kind, name)
}
