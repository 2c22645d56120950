//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
)

// target is something to measure.
type target struct {
	name    string
	command func(place) ([]string, error) // writes its settings and returns what to run; nil: nothing is in between
	carpool bool
}

// The names of targets that are known without a path.
const (
	direct       = "direct"
	reverseProxy = "reverseproxy"
	nginx        = "nginx"
	haproxy      = "haproxy"
	carpool      = "carpool"
)

// targetsOf turns names into targets; the name carpool stands for all programs given, which are built in dir.
func targetsOf(ctx context.Context, names []string, carpools []program, dir string) ([]target, error) {
	var list []target
	for _, name := range names {
		switch name {
		case direct:
			list = append(list, target{name: name})
		case reverseProxy:
			list = append(list, target{name: name, command: reverseProxyCommand})
		case nginx, haproxy:
			if _, err := exec.LookPath(name); err != nil {
				return nil, fmt.Errorf("cannot measure %s: %w (scripts/bench-deps installs it, -targets leaves it out)", name, err)
			}
			command := nginxCommand
			if name == haproxy {
				command = haproxyCommand
			}
			list = append(list, target{name: name, command: command})
		case carpool:
			for _, p := range carpools {
				p, err := p.build(ctx, dir)
				if err != nil {
					return nil, err
				}
				list = append(list, target{name: p.name, command: p.command, carpool: true})
			}
		default:
			return nil, fmt.Errorf("no target %q; known: %s, %s, %s, %s, %s", name, direct, reverseProxy, nginx, haproxy, carpool)
		}
	}
	return list, nil
}

// proxy is a target that runs.
type proxy struct {
	*target
	*process
	address string
	dir     string
}

// start starts a target in front of the upstream and waits until it is ready.
func (t *target) start(ctx context.Context, upstream string, files int) (*proxy, error) {
	if t.command == nil {
		return &proxy{target: t, process: &process{}, address: upstream}, nil
	}
	listen, err := freeAddress()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "carpool-bench-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a folder for %s: %w", t.name, err)
	}
	x := &proxy{target: t, address: listen, dir: dir}
	argv, err := t.command(place{dir, listen, upstream, files})
	if err == nil {
		x.process, err = start(dir, []string{"BENCH_UPSTREAM_KEY=sk-ant-bench"}, argv...)
	}
	if err == nil {
		err = x.ready(ctx, func() error { return x.check(ctx) })
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w%s", t.name, err, x.stopped())
	}
	return x, nil
}

// stopped is stop for one who has an error already.
func (x *proxy) stopped() string {
	if err := x.stop(); err != nil {
		return "; " + err.Error()
	}
	return ""
}

// stop ends the proxy and removes its folder.
func (x *proxy) stop() error {
	defer os.RemoveAll(x.dir)
	if x.process == nil || x.process.cmd == nil {
		return nil
	}
	return x.process.stop()
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("cannot find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (x *proxy) check(ctx context.Context) error {
	if x.carpool {
		return x.get(ctx, "/ready", nil)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", x.address)
	if err != nil {
		return fmt.Errorf("cannot connect: %w", err)
	}
	return c.Close()
}
