//go:build linux

package main

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
)

// place is where a proxy is started.
type place struct {
	dir      string // its own, for settings and data
	listen   string // address
	upstream string // address
	files    int    // limit of open files
}

// spareFiles are open files that a process needs besides its connections.
const spareFiles = 500

// write writes a file of settings.
func (p place) write(name, text string) (string, error) {
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("cannot write settings: %w", err)
	}
	return path, nil
}

// connections is how many clients a proxy can have that needs two files for each.
func (p place) connections() int { return min((p.files-spareFiles)/2, 30_000) }

func nginxCommand(p place) ([]string, error) {
	if err := os.Chmod(p.dir, 0o755); err != nil { // started by root, its workers are another user
		return nil, fmt.Errorf("cannot open the folder to nginx: %w", err)
	}
	path, err := p.write("nginx.conf", fmt.Sprintf(`
daemon off;
worker_processes 2;
worker_rlimit_nofile %d;
pid nginx.pid;
events { worker_connections %d; }
http {
  access_log off;
  client_max_body_size 64m;
  client_body_buffer_size 256k;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  keepalive_requests 100000000;
  upstream api { server %s; keepalive 20000; keepalive_requests 100000000; }
  server {
    listen %s backlog=4096;
    location / { proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }
  }
}
`, p.files, 2*p.connections(), p.upstream, p.listen))
	return []string{nginx, "-p", p.dir, "-c", path, "-e", "stderr"}, err
}

func haproxyCommand(p place) ([]string, error) {
	path, err := p.write("haproxy.cfg", fmt.Sprintf(`
global
  nbthread 2
  maxconn %d
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
frontend developers
  bind %s
  default_backend api
backend api
  http-reuse always
  server api %s
`, p.connections(), p.listen, p.upstream))
	return []string{haproxy, "-db", "-f", path}, err
}

// reverseProxyCommand runs this program once more, as the reverse proxy.
func reverseProxyCommand(p place) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find the program itself: %w", err)
	}
	return []string{self, reverseProxy, p.listen, p.upstream}, nil
}

// serveReverseProxy is the plainest proxy that Go's standard library makes, which every other one is compared with. Without full
// duplex it would cut answers that begin before the request was read to its end.
func serveReverseProxy(listen, upstream string) error {
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: upstream}) },
		Transport:     &http.Transport{MaxIdleConnsPerHost: 20_000, DisableCompression: true},
		FlushInterval: -1,
	}
	err := http.ListenAndServe(listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	return fmt.Errorf("cannot serve: %w", err)
}
